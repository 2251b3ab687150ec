"""A curation by Daft on a Ray cluster of two nodes on this machine, and by Daft's own runner: `SOURCES OUT`.

A process of its own: the runner can be told once. Prints how many nodes there were.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SMALL = 6000


def curated(sources: str, out: Path, runner: str) -> None:
    from herd.corpus.engine.job import Job, Places
    from herd.corpus.engine.run import run
    from herd.corpus.settings import CurateSettings, ReadSettings
    from herd.progress import Silent

    source = Places.of([sources], ReadSettings(unit_bytes=SMALL))
    run(Job(source, CurateSettings(), out, out / "work"), Silent(), workers=2, runner=runner)


def on_ray(sources: str, out: Path) -> int:
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
        ray.init(address=cluster.address, log_to_driver=False)
        curated(sources, out, "ray")
        return len(ray.nodes())
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    if len(sys.argv) > 3:
        curated(sys.argv[1], Path(sys.argv[2]), "daft")
    else:
        subprocess.run([sys.executable, __file__, sys.argv[1], str(Path(sys.argv[2]) / "daft"), "daft"], check=True)
        print(json.dumps(on_ray(sys.argv[1], Path(sys.argv[2]) / "ray")))
