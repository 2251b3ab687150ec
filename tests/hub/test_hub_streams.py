"""Token shards in a dataset of the hub are read range by range, as from the folder."""

from __future__ import annotations

import numpy as np
import pytest

from herd.corpus.blocks import BlockCache
from herd.corpus.shards import Shards, ShardWriter
from herd.corpus.streams import open_shards
from herd.errors import ArtifactError


def test_shards_of_the_hub_are_those_of_the_folder(server, tmp_path):
    rng = np.random.default_rng(0)
    with ShardWriter(tmp_path / "web", 1000, check_bytes=512) as writer:
        for n in range(20):
            writer.add(rng.integers(0, 1000, int(rng.integers(0, 200))), id=str(n), source="web", lang="en")
    here = Shards.open(tmp_path / "web")
    files = {f"web/{path.name}": path.read_bytes() for path in (tmp_path / "web").iterdir()}
    server.add("org/shards", files, kind="dataset")
    cache = BlockCache(tmp_path / "cache", 1 << 20)
    store = open_shards("hf://datasets/org/shards/web", cache, endpoint=server.url, token=False)
    for n in range(20):
        assert np.array_equal(store.section(0).document(n), here.document(n))
    assert {one.headers.get("range", "")[:6] for one in server.asked("web/tokens.bin")} == {"bytes="}
    with pytest.raises(ArtifactError, match=r"shards.json.*hf://datasets/org/shards/other"):
        open_shards("hf://datasets/org/shards/other", cache, endpoint=server.url, token=False)
