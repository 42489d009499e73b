"""Which part of an element (an object of a line, a row of a table) is a document, and where its answer begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from megarc.errors import kind_of

ANSWERING = ("assistant", "gpt", "model", "bot")
"""Roles of a chat's turns that are answers."""
_CONTENTS = (("role", "content"), ("from", "value"))


class BadLineError(Exception):
    """Why an element holds no document."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How a document is taken from an element.

    One text under ``key``; or a question under ``recent_key`` and its answer under
    ``causal_key``; or a chat, a list of turns under ``chat_key``, whose last answer is
    what everything before it leads to; or the text under ``key``, whose answer begins
    behind the first ``separator``.
    """

    key: str = "text"
    recent_key: str | None = None
    causal_key: str | None = None
    chat_key: str | None = None
    separator: str | None = None

    @property
    def divided(self) -> bool:
        """Whether a document has a question and an answer."""
        return self.recent_key is not None or self.chat_key is not None or self.separator is not None

    @property
    def columns(self) -> list[str]:
        """The keys that are read."""
        if self.recent_key is not None and self.causal_key is not None:
            return [self.recent_key, self.causal_key]
        return [self.chat_key or self.key]

    def pick(self, element: object) -> tuple[str, int]:
        """The text, and how many of its characters come before the answer (0 where there is none).

        Raises:
            BadLineError: where the element has no such text, or an empty answer.
        """
        if self.recent_key is not None and self.causal_key is not None:
            question, answer = text_in(element, self.recent_key), text_in(element, self.causal_key)
            return _divided(question, answer, f"the key '{self.causal_key}' is empty")
        if self.chat_key is not None:
            return _chat(element, self.chat_key)
        text = element if isinstance(element, str) else text_in(element, self.key)
        return (text, 0) if self.separator is None else self.divide(text)

    def divide(self, text: str) -> tuple[str, int]:
        """A plain text as a document.

        Raises:
            BadLineError: where there is no separator in it, or nothing behind the first.
        """
        if self.separator is None:
            return text, 0
        question, found, answer = text.partition(self.separator)
        if not found:
            raise BadLineError(f"the separator {self.separator!r} is not in the text")
        return _divided(question + found, answer, f"nothing follows the separator {self.separator!r}")


def text_in(element: object, key: str) -> str:
    """The text under ``key``."""
    if not isinstance(element, dict):
        raise BadLineError(f"{kind_of(element)}, not an object with the key '{key}'")
    if key not in element:
        raise BadLineError(f"no key '{key}'")
    text = element[key]
    if isinstance(text, str):
        return text
    raise BadLineError(f"the key '{key}' holds {kind_of(text)}, not a string")


def _divided(question: str, answer: str, empty: str) -> tuple[str, int]:
    if not answer.strip():
        raise BadLineError(empty)
    return question + answer, len(question)


def _chat(element: object, key: str) -> tuple[str, int]:
    """Each turn as its role, a colon, and its text on lines of its own; what follows the last answer is left out."""
    if not isinstance(element, dict) or key not in element:
        raise BadLineError(f"no key '{key}'")
    turns = element[key]
    if not isinstance(turns, list):
        raise BadLineError(f"the key '{key}' holds {kind_of(turns)}, not a list of turns")
    said = [_turn(turn, number) for number, turn in enumerate(turns, 1)]
    last = max((place for place, (role, _) in enumerate(said) if role in ANSWERING), default=None)
    if last is None:
        raise BadLineError(f"no turn of the key '{key}' is an answer (a role of {', '.join(ANSWERING)})")
    question = "".join(f"{role}:\n{text}\n\n" for role, text in said[:last]) + f"{said[last][0]}:\n"
    return _divided(question, said[last][1], f"turn {last + 1}, the last answer, is empty")


def _turn(turn: Any, number: int) -> tuple[str, str]:
    for role, content in _CONTENTS:
        if isinstance(turn, dict) and isinstance(turn.get(role), str) and isinstance(turn.get(content), str):
            return turn[role], turn[content]
    raise BadLineError(f"turn {number} has no role and content that are strings")
