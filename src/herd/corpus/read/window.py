"""A moving window over a packed file's bytes that knows where in the file each of them came from."""

from __future__ import annotations

from collections import deque

from herd.corpus.read.packing import BrokenPacking, Packed


class Window:
    """`data` holds what was unpacked and not yet dropped; `place` says where its first byte lies."""

    def __init__(self, packed: Packed) -> None:
        self._packed = packed
        self.data = bytearray()
        self._members: deque[tuple[int, int]] = deque()  # (position in data, file offset) of members that begin later
        self._member, self._inside = packed.offset, 0
        self.broken: BrokenPacking | None = None
        self.ended = False

    def more(self) -> bool:
        """Unpack another piece; False at the end, and at damage (see `broken`)."""
        if self.ended or self.broken:
            return False
        try:
            piece = self._packed.piece()
        except BrokenPacking as error:
            self.broken = error
            return False
        if self._packed.fresh:
            self._members.append((len(self.data), self._packed.offset))
        self.ended = not piece
        self.data += piece
        return bool(piece)

    def holds(self, count: int) -> bool:
        """Whether `count` bytes are there, after unpacking as many pieces as that needs."""
        while len(self.data) < count:
            if not self.more():
                return False
        return True

    def drop(self, count: int) -> None:
        """Go on by `count` bytes, those not yet unpacked included."""
        while count > len(self.data):
            count -= len(self.data)
            self._forget(len(self.data))
            if not self.more():
                return
        self._forget(count)

    def _forget(self, count: int) -> None:
        del self.data[:count]
        self._inside += count
        while self._members and self._members[0][0] <= count:
            at, self._member = self._members.popleft()
            self._inside = count - at
        self._members = deque((at - count, offset) for at, offset in self._members)

    @property
    def place(self) -> str:
        """ "byte 4711", and how far inside the member where one packs several records."""
        at, inside = self._where()
        return f"byte {at}" + (f" + {inside} unpacked" if inside else "")

    @property
    def mark(self) -> str:
        """The same for ids: 4711, or 4711+210."""
        at, inside = self._where()
        return f"{at}" + (f"+{inside}" if inside else "")

    def _where(self) -> tuple[int, int]:
        self._settle()
        return (self._member + self._inside, 0) if self._packed.plain else (self._member, self._inside)

    def _settle(self) -> None:
        while self._members and self._members[0][0] <= 0:
            at, self._member = self._members.popleft()
            self._inside = -at

    def next_member(self, within: int) -> int:
        """How many bytes from here the next member begins, if that is before `within`; else `within`."""
        self._settle()
        return min((at for at, _ in self._members if at), default=within)

    def recover(self, head: bytes, here: bool = False) -> bool:
        """After damage, or at the beginning of a range (`here`): go to the next member that begins with `head`."""
        self.data.clear()
        self._members.clear()
        found = self._packed.recover(head, here)
        self.broken, self.ended = None, not found
        return found
