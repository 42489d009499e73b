"""The loop that writes: texts of any length side by side, and the next one as soon as one has ended.

A window begins with a text's newest tokens (``Window.opening`` says how many). Each further token is one more row,
computed against the keys and values of the rows before. A full window moves: its beginning is encoded again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from megarc.inference.decoder import Decoder, Opening
from megarc.inference.sampling import Sampling, draw
from megarc.window import Window


class Text(Protocol):
    """A text on its way."""

    ids: list[int]

    def uniform(self) -> float:
        """The number in [0, 1) that decides the next token."""

    def take(self, token: int, likely: float) -> bool:
        """Appends a token, log-probability ``likely`` in nats; whether the text goes on in this window."""


class Loop:
    """Texts that are written side by side.

    ``add`` texts, then call ``step`` while ``busy``: it returns those that have left, and takes in those that
    wait. A text that left may be added again, with more tokens.

    Args:
        slots: texts at once.
    """

    def __init__(self, decoder: Decoder, window: Window, sampling: Sampling, slots: int) -> None:
        window.opening(1, sampling.refresh)  # refuses a refresh that the window has not
        self._decoder, self._window, self._sampling, self._most = decoder, window, sampling, slots
        self._waiting: deque[Text] = deque()
        self._active: list[_Active] = []
        self._seen: Tensor | None = None

    @property
    def busy(self) -> bool:
        return bool(self._active or self._waiting)

    @property
    def room(self) -> int:
        """Texts that could be written beside those that are there."""
        return max(0, self._most - len(self._active) - len(self._waiting))

    def add(self, texts: Iterable[Text]) -> None:
        """Texts of one token at least, which want one more at least."""
        self._waiting.extend(texts)

    def step(self) -> list[Text]:
        """A token more for each text that has a slot; the texts that have left."""
        left = self._open()
        if self._active:
            logits = self._decoder.advance([active.text.ids[-1] for active in self._active])
            left += self._draw(logits, range(len(self._active)))
        return left

    def _open(self) -> list[Text]:
        """Windows begin: of texts that wait, and of those whose window is full. Each gets its first token."""
        left: list[Text] = []
        while True:
            while self._waiting and len(self._active) < self._most:
                self._active.append(_Active(self._waiting.popleft()))
                self._remember(len(self._active) - 1)
            new = [slot for slot, active in enumerate(self._active) if not active.room]
            if not new:
                return left
            logits = self._decoder.begin([self._opening(slot) for slot in new])
            left += self._draw(logits, new)

    def _opening(self, slot: int) -> Opening:
        active, window = self._active[slot], self._window
        begun, active.room = window.opening(len(active.text.ids), self._sampling.refresh)
        return Opening(slot, active.text.ids[-begun:], min(window.recent, begun - 1))

    def _draw(self, logits: Tensor, slots: Iterable[int]) -> list[Text]:
        """Draws from ``logits`` [slots, ids]; the texts that leave, whose slots others take."""
        numbers = list(slots)
        uniform = torch.tensor([self._active[slot].text.uniform() for slot in numbers], dtype=torch.float64)
        seen = None if self._seen is None else self._seen[torch.tensor(numbers, device=logits.device)]
        tokens, likely = draw(logits, self._sampling, uniform.to(logits.device), seen)
        if self._seen is not None:
            self._seen[torch.tensor(numbers, device=logits.device), tokens] = True
        gone = []
        for slot, token, value in zip(numbers, tokens.tolist(), likely.tolist(), strict=True):
            self._active[slot].room -= 1
            if not self._active[slot].text.take(token, value):
                gone.append(slot)
        return [self._leave(slot) for slot in reversed(gone)]

    def _leave(self, slot: int) -> Text:
        """Frees a slot; the last text moves into it, so that the texts lie side by side."""
        text, last = self._active[slot].text, self._active.pop()
        if last.text is not text:
            self._active[slot] = last
            self._decoder.move(len(self._active), slot)
            if self._seen is not None:
                self._seen[slot] = self._seen[len(self._active)]
        return text

    def _remember(self, slot: int) -> None:
        """Which tokens a text has, where those are penalised."""
        if self._sampling.repetition == 1:
            return
        if self._seen is None:
            ids = self._decoder.model.config.padded_vocabulary
            self._seen = torch.zeros((self._most, ids), dtype=torch.bool, device=self._decoder.device)
        self._seen[slot] = False
        self._seen[slot, torch.tensor(self._active[slot].text.ids, device=self._seen.device)] = True


class _Active:
    """A text that has a slot, and how many tokens its window can still draw; 0: it must begin another."""

    def __init__(self, text: Text) -> None:
        self.text, self.room = text, 0
