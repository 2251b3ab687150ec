"""Choices that fall by a name alone: the same on every machine, in every order, whatever else there is."""

from __future__ import annotations

import hashlib


def drawn(*names: object) -> float:
    """A number in [0, 1), even over all names; several make one name, such as a seed and an id."""
    digest = hashlib.blake2b("\0".join(map(str, names)).encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64
