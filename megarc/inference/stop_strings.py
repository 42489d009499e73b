"""What a model added, as text, and strings that end it, wherever tokens begin and end."""

from __future__ import annotations

from collections.abc import Sequence

from megarc.corpus import Tokenizer
from megarc.errors import UserError

_SLACK = 8  # characters: of a tail's ends, that half a character or a stripped space may have changed


class StopStrings:
    """Strings that end a text as soon as what was added holds one, also where it ends inside a token.

    Raises:
        UserError: for an empty string.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str]) -> None:
        if not all(stops):
            raise UserError("a stop string is empty; give --stop some text")
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._longest = max(map(len, stops), default=0)

    def ended(self, prompt: Sequence[int], new: Sequence[int]) -> bool:
        """Whether the tokens ``new`` behind ``prompt`` hold a stop string; asked after each token."""
        return self._may_hold(new) and any(one in added(self._tokenizer, prompt, new) for one in self._stops)

    def cut(self, text: str) -> str:
        """``text`` up to the stop string that begins first."""
        places = [text.find(one) for one in self._stops]
        return text[: min((place for place in places if place >= 0), default=len(text))]

    def _may_hold(self, new: Sequence[int]) -> bool:
        """Whether the end of the text does: a few tokens, so that a long text costs no more than a short one."""
        if not self._stops:
            return False
        count = self._longest + _SLACK
        while True:
            tail = self._tokenizer.decode(new[-count:])
            if any(one in tail for one in self._stops):
                return True
            if len(tail) >= self._longest + _SLACK or count >= len(new):
                # Too short a text may have lost its first character: the whole is asked.
                return count >= len(new) and len(tail) < self._longest + _SLACK
            count *= 2


def added(tokenizer: Tokenizer, prompt: Sequence[int], new: Sequence[int]) -> str:
    """The text of ``new`` where it follows ``prompt``: with its leading space, for instance."""
    before, whole = tokenizer.decode(prompt), tokenizer.decode([*prompt, *new])
    return whole[len(before) :] if whole.startswith(before) else tokenizer.decode(new)
