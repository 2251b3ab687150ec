"""The standard library as documents."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from herd.corpus.documents import Document, Unreadable
from herd.corpus.stdlib import public_modules, stdlib_documents, stdlib_pages, stdlib_sources


def test_pages_and_sources_of_some_modules() -> None:
    items = list(stdlib_documents(6))
    documents = [item for item in items if isinstance(item, Document)]
    pages = [document for document in documents if document.source == "stdlib-docs"]
    sources = [document for document in documents if document.source == "stdlib-code"]
    assert [page.meta["module"] for page in pages] == list(public_modules()[:6])
    assert any(page.id == "stdlib-docs/argparse" and "ArgumentParser" in page.text for page in pages)
    assert all(page.lang == "en" for page in pages)
    assert all(source.lang == "code" for source in sources)
    assert "stdlib-code/asyncio/tasks.py" in {source.id for source in sources}
    assert not any("/test" in source.id for source in sources)


def test_the_order_and_the_text_are_the_same_every_time() -> None:
    modules = ("abc", "configparser", "difflib", "doctest", "functools", "random", "threading")
    assert list(stdlib_pages(modules)) == list(stdlib_pages(modules))


def test_nothing_of_this_machine_gets_into_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERD_SECRET_FOR_TEST", "do-not-print")
    text = "".join(page.text for page in stdlib_pages(("os", "sys", "site", "sysconfig")) if isinstance(page, Document))
    assert len(text) > 10_000
    assert "do-not-print" not in text
    assert str(Path(os.__file__).parent) not in text
    assert " at 0x" not in text


def test_a_module_that_cannot_be_imported_is_a_verdict() -> None:
    items = list(stdlib_pages(("abc", "no_such_module")))
    assert isinstance(items[0], Document)
    assert isinstance(items[1], Unreadable)
    assert "ModuleNotFoundError" in items[1].detail


def test_side_effects_are_not_in_the_list() -> None:
    modules = set(public_modules())
    assert len(modules) > 130
    assert not modules & {"antigravity", "this", "idlelib", "turtledemo", "tkinter", "turtle", "test", "site"}


def test_sources_of_c_modules_are_absent() -> None:
    assert list(stdlib_sources(("math", "itertools"))) == []
