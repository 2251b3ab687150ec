"""The tests of several processes."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "distributed: several processes that talk over gloo (make test-distributed)")
