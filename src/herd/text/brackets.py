"""Where a bracket is closed again, in text that comes one character at a time."""

from __future__ import annotations


class Brackets:
    """Whether brackets are closed again, those inside quoted strings not counted."""

    def __init__(self, quotes: str) -> None:
        self._quotes = quotes
        self._depth = 0
        self._quote = ""
        self._escaped = self.closed = False

    def closes(self, character: str) -> bool:
        """Take one more character; True if it closes the first bracket."""
        if self._quote:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == self._quote:
                self._quote = ""
        elif character in self._quotes:
            self._quote = character
        else:
            self._depth += (character in "{[(") - (character in ")]}")
            self.closed = self._depth <= 0
        return self.closed
