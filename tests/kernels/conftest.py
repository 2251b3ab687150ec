"""Fixtures of the tests of kernels."""

from kernel_levels import compiled, level  # noqa: F401
