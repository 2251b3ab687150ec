"""Stop texts in a stream of tokens, wherever the tokens are cut.

    stream = StopText(StreamDecoder(tokenizer, skip_special=True), ("\\n\\n", "User:"))
    text = stream.push(token)        # what can be shown: no beginning of a stop text is in it
    if stream.found: ...

The stop text that is complete first ends the text, of two that end together the longer one: so the result depends on
the characters alone, not on how tokens cut them.
"""

from __future__ import annotations

from herd.text.stream import Decoder


class StopText:
    """Push tokens; out comes the text before the first stop text, held back as long as it may yet become one."""

    def __init__(self, decoder: Decoder, stops: tuple[str, ...]) -> None:
        self.found = ""  # the stop text that was met; nothing comes out after it
        self._decoder, self._stops, self._held = decoder, stops, ""

    def push(self, token: int) -> str:
        """The text that `token` makes certain."""
        return self._take(self._decoder.push(token))

    def flush(self) -> str:
        """The rest, when the stream ends without a stop text."""
        text = self._take(self._decoder.flush())
        held, self._held = self._held, ""
        return text + ("" if self.found else held)

    def _take(self, piece: str) -> str:
        if self.found or not piece:
            return ""
        text = self._held + piece
        ends = [(text.find(stop) + len(stop), -len(stop), stop) for stop in self._stops if stop in text]
        if ends:
            end, _, self.found = min(ends)
            self._held = ""
            return text[: end - len(self.found)]
        keep = self._beginnings(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _beginnings(self, text: str) -> int:
        """How many last characters may be the beginning of a stop text."""
        most = min(max(map(len, self._stops), default=1) - 1, len(text))
        return next((n for n in range(most, 0, -1) if any(stop.startswith(text[-n:]) for stop in self._stops)), 0)
