"""The small chat model that `bench.soak` serves: random weights in float32, a tokenizer of a few paragraphs.

    python -m bench.soak_model FOLDER

Float32, and weights that make some tokens far likelier than others: the same request then says the same alone and in
a full batch, which the soak looks at.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.text import Tokenizer
from herd.weights.hf import save_model

TEXTS = (
    "The herd grazed below the pass until the first snow. In spring the animals climb to the alp, and in autumn, "
    "garlanded with flowers, they come down to the valley again. What the weather will be, nobody can tell.",
    "Die Herde weidete unter dem Pass. Was kostet die Fahrt nach Chur, und wann fährt der nächste Zug?",
    '{"name": "weather", "parameters": {"city": "Chur", "days": 3}} {"answer": true, "items": [1, 2, 3]}',
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))\n",
)
_SHARPER = 4.0  # factor on every matrix


def make_model(folder: Path, *, context: int = 4096) -> None:
    """About 0.9M parameters."""
    tokenizer = Tokenizer.train([text * 3 for text in TEXTS], 768)
    config = LlamaConfig(tokenizer.vocab_size, 128, 4, 4, 2, 384, max_seq_len=context, tie_embeddings=True)
    model = Llama(config)
    init_weights(model, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(_SHARPER if parameter.dim() == 2 else 1.0)
    save_model(folder, model, config, tokenizer=tokenizer, dtype=torch.float32, herd={}, instruct=True)


if __name__ == "__main__":
    make_model(Path(sys.argv[1]))
