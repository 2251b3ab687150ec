"""Sampling where guesses stand: each place in its turn, as far as the guesses hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from herd.generate.protocol import Sampled, Step
from herd.generate.rows import Rows


class Place(NamedTuple):
    """A request that is to be given a token, and perhaps some more."""

    row: int  # of the batch
    logits: int  # the row of the logits behind its last known token; those behind its guesses follow
    drafts: tuple[int, ...]


def sample_places(rows: Rows, logits_UV: Tensor, places: Sequence[Place]) -> Step:
    """A token for each place, and the next ones while what was sampled is what was guessed.

    One place of each request at a time: penalties, grammars and stop texts follow what was said before it. What is
    sampled with no guess behind it, or ends its request, is the request's last of the step.
    """
    sampled: list[Sampled] = []
    finished = []
    depth, live = 0, list(places)
    while live:
        wanted = [place.logits + depth for place in live]
        whole = wanted == list(range(len(logits_UV)))
        step = rows.step(logits_UV if whole else logits_UV[wanted], np.array([place.row for place in live]))
        sampled += step.sampled
        finished += step.finished
        ended = {number for number, _ in step.finished}
        live = [
            place
            for place, one in zip(live, step.sampled, strict=True)
            if one.number not in ended and depth < len(place.drafts) and one.token == place.drafts[depth]
        ]
        depth += 1
    return Step(sampled, finished)
