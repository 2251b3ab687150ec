"""A pool of pages for keys and values: who holds which page, and which pages hold a known beginning of a text.

    pool = Pages(count=1024, size=16)
    table = pool.begin(prompt)              # holds the pages that are known already: table.length positions
    copies = pool.extend(table, 40)         # 40 more positions can be written; copy these pages first
    pool.publish(table, tokens)             # its full pages can be found by others from now on
    pool.drop(table)

Positions [i * size, (i + 1) * size) of a sequence lie in page `table.pages[i]`. A page is free, held by one or more
tables, or kept: published and held by nobody, found again or given away, least recently used first. Full pages never
change; a page that a fork shares is copied before it is written. (PagedAttention: Kwon et al. 2023.)
Only numbers here, no tensors; nothing is thread-safe.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from herd.errors import SettingError

PAGE = 16  # positions of the engine's pages: what is shared is shared in steps of this
Key = bytes
ROOT: Key = b""  # what comes before a first page


@dataclass(eq=False)
class Table:
    """The pages of one sequence, and how many of its positions they are there for."""

    pages: list[int] = field(default_factory=list)
    length: int = 0
    keys: list[Key] = field(default_factory=list)  # of its full pages that were published, or found


class Pages:
    """`count` pages of `size` positions each. Raises SettingError for a pool that holds nothing."""

    def __init__(self, count: int, size: int) -> None:
        for name, value in (("count", count), ("size", size)):
            if value < 1:
                raise SettingError(f"{name} of pages is {value}", where=name, mend="give 1 at least")
        self.count, self.size = count, size
        self._free = list(range(count - 1, -1, -1))
        self._holders = [0] * count
        self._page_of: dict[Key, int] = {}
        self._key_of: dict[int, Key] = {}
        self._kept: OrderedDict[int, None] = OrderedDict()  # the least recently used first

    @property
    def available(self) -> int:
        """Pages that can be taken: free ones, and kept ones that would be forgotten."""
        return len(self._free) + len(self._kept)

    def needed(self, length: int) -> int:
        """How many pages `length` positions take."""
        return -(-length // self.size)

    def begin(self, tokens: Sequence[int]) -> Table:
        """A table over the known beginning of `tokens`, without the last of them, which is always to be computed."""
        table = Table()
        self.follow(table, tokens)
        return table

    def follow(self, table: Table, tokens: Sequence[int]) -> int:
        """Hold further pages of `tokens` that became known, if the table ends with a page; how many they are."""
        before = len(table.pages)
        while table.length % self.size == 0 and table.length + self.size < len(tokens):
            key = next(self.keys(table, tokens))
            page = self._page_of.get(key)
            if page is None:
                break
            self._hold(page)
            table.pages.append(page)
            table.keys.append(key)
            table.length += self.size
        return len(table.pages) - before

    def keys(self, table: Table, tokens: Sequence[int]) -> Iterator[Key]:
        """What names the full pages of `tokens` that the table has no key of: all tokens up to the end of each.

        A cryptographic hash over that of the page before: a collision would show one request the text of another.
        """
        key = table.keys[-1] if table.keys else ROOT
        for start in range(len(table.keys) * self.size, len(tokens) - self.size + 1, self.size):
            key = chained(key, tokens[start : start + self.size])
            yield key

    def fork(self, table: Table) -> Table:
        """A second holder of the same pages. Whichever of the two writes first gets a copy of a page not yet full."""
        for page in table.pages:
            self._hold(page)
        return Table(list(table.pages), table.length, list(table.keys))

    def extend(self, table: Table, n: int) -> list[tuple[int, int]]:
        """Make the next `n` positions writable; (from, to) of the pages to copy before that.

        The caller knows that there is room (`available`).
        """
        copies = []
        if n and table.length % self.size and self._holders[table.pages[-1]] > 1:
            shared, own = table.pages[-1], self._take()
            table.pages[-1] = own
            self._release(shared)
            copies.append((shared, own))
        table.length += n
        while len(table.pages) * self.size < table.length:
            table.pages.append(self._take())
        return copies

    def publish(self, table: Table, tokens: Sequence[int]) -> None:
        """`tokens` are computed: the full pages among them can be found. Of two pages of one text the first stays."""
        while (len(table.keys) + 1) * self.size <= min(len(tokens), table.length):
            key, page = next(self.keys(table, tokens)), table.pages[len(table.keys)]
            table.keys.append(key)
            if key not in self._page_of:
                self._page_of[key] = page
                self._key_of[page] = key

    def truncate(self, table: Table, length: int) -> int:
        """Take the positions from `length` on back, none of which is published; how many pages that lets go."""
        assert len(table.keys) * self.size <= length <= table.length, "what is published stays"
        kept = self.needed(length)
        gone = table.pages[kept:]
        for page in reversed(gone):
            self._release(page)
        del table.pages[kept:]
        table.length = length
        return len(gone)

    def drop(self, table: Table) -> None:
        """Let go of all pages of a table, the last first: ends of texts are forgotten before their beginnings."""
        for page in reversed(table.pages):
            self._release(page)
        table.pages, table.keys, table.length = [], [], 0

    def forget(self) -> None:
        """Forget every page that nobody holds: the weights changed, say."""
        while self._kept:
            self._free.append(self._evict())

    def check(self, tables: Iterable[Table] = ()) -> None:
        """Assert the invariants, `tables` being all that are in use."""
        tables = list(tables)
        held = Counter(page for table in tables for page in table.pages)
        assert [held[page] for page in range(self.count)] == self._holders, "holders are not those of the tables"
        free, kept, used = set(self._free), set(self._kept), set(held)
        assert len(free) == len(self._free), "a page is free twice"
        assert len(free) + len(kept) + len(used) == self.count == len(free | kept | used), (
            "a page is lost or in two states"
        )
        assert {page: key for key, page in self._page_of.items()} == self._key_of, "the index is not one to one"
        assert kept <= set(self._key_of), "a page is kept that nobody can find"
        assert not free & set(self._key_of), "a free page can be found"
        for table in tables:
            assert self.needed(table.length) == len(table.pages), "a table has too few or too many pages"
            full = set(table.pages[: table.length // self.size])
            open_pages = set(table.pages) - full
            assert not open_pages & set(self._key_of), "a page that is written can be found"

    def _hold(self, page: int) -> None:
        self._kept.pop(page, None)
        self._holders[page] += 1

    def _release(self, page: int) -> None:
        self._holders[page] -= 1
        if self._holders[page] == 0:
            if page in self._key_of:
                self._kept[page] = None
            else:
                self._free.append(page)

    def _take(self) -> int:
        assert self.available, "no page is left: the caller did not count"
        page = self._free.pop() if self._free else self._evict()
        self._holders[page] = 1
        return page

    def _evict(self) -> int:
        page, _ = self._kept.popitem(last=False)
        del self._page_of[self._key_of.pop(page)]
        return page


def chained(parent: Key, tokens: Sequence[int]) -> Key:
    """The name of a page: what came before it, and its tokens."""
    return hashlib.blake2b(parent + array("q", tokens).tobytes(), digest_size=16).digest()
