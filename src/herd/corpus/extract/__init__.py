"""HTML -> the main text of a page, with its title, date, address and language."""

from herd.corpus.extract.page import Page, extract

__all__ = ["Page", "extract"]
