"""Text out of models: the `Generator` protocol (`protocol`, imports no torch) and the embedded engine (`engine`)."""

from herd.generate.protocol import Completion, Generator, Request, Sampling

__all__ = ["Completion", "Generator", "Request", "Sampling"]
