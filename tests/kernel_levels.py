"""Fixtures for what needs the compiled kernels: that they are there, and each level that this processor has."""

import pytest

from herd.kernels import library


@pytest.fixture(params=library.LEVELS)
def level(request, monkeypatch):
    path = library.library_path()
    if path is None:
        pytest.skip("the kernels were not compiled: no C compiler when herd was installed")
    if library._load(path).herd_best_level() < library.LEVELS.index(request.param):
        pytest.skip(f"this processor has no {request.param}")
    monkeypatch.setenv(library.VARIABLE, request.param)
    library.kernels.cache_clear()
    yield request.param
    library.kernels.cache_clear()


@pytest.fixture
def compiled():
    if library.kernels() is None:
        pytest.skip("the kernels were not compiled: no C compiler when herd was installed")
