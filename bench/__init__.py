"""Benchmarks: our figure, a peer's on the same work in the same run, and the machine's limit. See `harness.py`."""
