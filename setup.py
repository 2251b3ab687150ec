"""The compiled kernels. Everything else of the build is in pyproject.toml, whose extension modules are experimental.

Optional: without a compiler, or where it fails, herd is installed all the same and torch does their work. The library
is loaded with ctypes and needs no Python.h; functions for each level of instructions are chosen when it runs.
"""

from glob import glob

from setuptools import Extension, setup

SOURCES = "src/herd/kernels/csrc"

setup(
    ext_modules=[
        Extension(
            "herd.kernels._kernels",
            sources=sorted(glob(f"{SOURCES}/*.c")),
            depends=sorted(glob(f"{SOURCES}/*.h")),
            extra_compile_args=["-O3", "-std=c11", "-ffp-contract=off", "-fvisibility=hidden"],
            optional=True,
        )
    ]
)
