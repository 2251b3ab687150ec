"""A first try of grammars that may take for ever, in a process of its own that can be ended.

llguidance bounds every step that depends on the vocabulary, but not the search for an empty intersection of patterns:
twenty of them in an "allOf" take three seconds, and a schema can hold a thousand such. Nothing can stop that within a
process, so what has the ingredients is compiled elsewhere first, over a vocabulary of bytes, for which it is as hard.
"""

from __future__ import annotations

import os
import subprocess
import sys

from herd.errors import InputError

SECONDS = 3.0  # a process needs 0.1 of it; grammars that people write need hundredths
_PATTERNS = ("pattern", "multipleOf", "format", "%json", "&", "~")  # what is intersected, in schemas and in Lark
_JOINTS = ("allOf", "anyOf", "oneOf", "$ref", "&", "~")  # where

_PROGRAM = """
import sys
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
class Bytes:
    eos_token_id = bos_token_id = 256
    tokens, special_token_ids = [bytes([i]) for i in range(256)] + [b"<end>"], [256]
    def __call__(self, text):
        return list(text.encode() if isinstance(text, str) else text)
LLMatcher(LLTokenizer(TokenizerWrapper(Bytes()), eos_token=256), sys.stdin.buffer.read().decode(), log_level=0)
"""


def may_take_long(grammar: str) -> bool:
    """Whether a grammar has the ingredients; most have not, and are not tried."""
    return any(word in grammar for word in _PATTERNS) and any(word in grammar for word in _JOINTS)


def try_out(grammar: str, where: str, seconds: float = SECONDS) -> None:
    """InputError if compiling takes longer than that, or does not survive. What else is wrong shows when it is used."""
    try:
        subprocess.run(
            [sys.executable, "-P", "-c", _PROGRAM],  # -P: nothing in the working folder is importable
            input=grammar.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # wherever llguidance is
            timeout=seconds,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"the grammar takes over {seconds:g} seconds to compile",
            where=where,
            mend="put fewer patterns together (allOf, anyOf, $ref beside pattern)",
        ) from error
    except subprocess.CalledProcessError as error:
        raise InputError("the grammar cannot be compiled", where=where, mend="make it smaller") from error
