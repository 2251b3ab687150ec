"""herd: raise a family of Llama 3.1 models, or adopt the released ones. See docs/architecture.md."""

__version__ = "0.1.0"
