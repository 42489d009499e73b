"""Places in a text at which its tokens are sure to have a border, so that parts of it can be encoded one by one.

Most tokenizers cut a text at spaces before they merge. Between a letter and the space behind it there is then a
border of tokens, and what lies on one side has no influence on the other: encode(a) + encode(b) = encode(a + b).
`known_borders.py` says of which tokenizers this is known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

_FIRST_LOOK = 256  # characters, before a place, in which a border is looked for; then 16 times as many


@dataclass(frozen=True, slots=True)
class TextBorders:
    """How a tokenizer's texts can be cut.

    Attributes:
        pattern: its matches end where a part can end.
        gap: characters between two parts that belong to neither: 1 where the library puts a space before each text,
            so that the space at the border comes back.
        normalize: what the library makes of a text before it looks for tokens; None: nothing that a border matters to.
    """

    pattern: re.Pattern[str]
    gap: int = 0
    normalize: Callable[[str], str] | None = None

    def parts(self, text: str, size: int) -> list[str]:
        """``text`` in parts of at least ``size`` characters; the whole, where it is normalized across a border."""
        parts, begin, pattern = [], 0, self.pattern
        while len(text) - begin > size and (found := pattern.search(text, begin + size)):
            parts.append(text[begin : found.end()])
            begin = found.end() + self.gap
        parts.append(text[begin:])
        if self.normalize and "".join(map(self.normalize, parts)) != self.normalize(text):
            return [text]
        return parts

    def around(self, text: str, places: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Where the parts with the characters ``places``, in order, begin and end: the shortest ones, each once."""
        begin, end = 0, -1
        for place in places:
            if place < end:
                continue
            floor = 0 if end < 0 else end + self.gap
            start = self._last_before(text, floor, place)
            if end >= 0 and start > floor:
                yield begin, end
            if end < 0 or start > floor:
                begin = start
            found = self.pattern.search(text, place)
            end = found.end() if found else len(text)
        if end >= 0:
            yield begin, end

    def _last_before(self, text: str, floor: int, place: int) -> int:
        """Where the part with the character ``place`` begins; ``floor`` where no border lies between."""
        look = _FIRST_LOOK
        while True:
            first = max(floor, place - look)
            start = -1
            for found in self.pattern.finditer(text, first, place):
                start = found.end() + self.gap
            if start >= 0 or first == floor:
                return max(start, floor)
            look *= 16
