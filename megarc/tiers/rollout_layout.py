"""Where a roll-out stands in a window.

    row   0 ...                                                    r-1 | r ...
          history (newest)  <ro:0> m tokens </ro> <ro:0> ... </ro>     | boundary's token, then C
          R: all of it is seen whole, none of it predicted             | C

History and roll-outs share the r rows of R: what a roll-out takes, the oldest
history gives; where one is left out, older history comes back. C's tokens are
the same whatever R holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from megarc.errors import UserError

Tokens: TypeAlias = npt.NDArray[np.int64]
Places: TypeAlias = npt.NDArray[np.int32]
Kept: TypeAlias = npt.NDArray[np.bool_]

MOST_TIERS = 10  # that write


@dataclass(frozen=True, slots=True)
class Tags:
    """The reserved tokens around roll-outs.

    Attributes:
        opening: of each tier, the id that opens a roll-out.
        closing: the id of ``</ro>``.
        filler: an id that stands for a token that says nothing.
    """

    opening: tuple[int, ...]
    closing: int
    filler: int

    @classmethod
    def of(cls, reserved: Mapping[str, int] | None, name: str) -> Tags:
        """``<ro>`` for tier 0, ``<spare0>`` for tier 1, ``<spare1>`` for tier 2, ...; ``<spare9>`` is the filler.

        Raises:
            UserError: where the tokenizer of ``name`` has not reserved them.
        """
        wanted = ["<ro>", *(f"<spare{number}>" for number in range(MOST_TIERS - 1)), "</ro>", "<spare9>"]
        missing = [token for token in wanted if token not in (reserved or {})]
        if reserved is None or missing:
            raise UserError(
                f"{name}: its tokenizer has no {missing[0]}, which frames roll-outs; "
                "data_tools/train_tokenizer.py makes tokenizers that reserve it"
            )
        ids = [reserved[token] for token in wanted]
        return cls(tuple(ids[:MOST_TIERS]), ids[-2], ids[-1])

    @property
    def ids(self) -> tuple[int, ...]:
        """All of them: no roll-out holds one."""
        return (*self.opening, self.closing, self.filler)

    def frame(self, tier: int, rollouts: Tokens) -> Tokens:
        """Roll-outs [batch, K, m] of a tier between their tags: [batch, K, m + 2]."""
        edge = (*rollouts.shape[:2], 1)
        opening, closing = np.full(edge, self.opening[tier]), np.full(edge, self.closing)
        return np.concatenate([opening, rollouts, closing], axis=2)


@dataclass(frozen=True, slots=True)
class Assembled:
    """R and the rows behind it: ``tokens`` [batch, R + behind], ``positions`` and ``origin`` of each row.

    ``origin`` [batch, R + behind] is the column of the given text that a row shows, or, of a roll-out's rows,
    the boundary's. ``recent`` is the number of rows of R.
    """

    tokens: Tokens
    positions: Places
    origin: Places
    recent: int


@dataclass(frozen=True, slots=True)
class Layout:
    """How R is filled: ``recent`` rows, of which ``history`` stay (None: whatever roll-outs leave)."""

    recent: int
    history: int | None

    def fitting(self, lengths: Sequence[int]) -> Kept:
        """Which roll-outs, of ``lengths`` rows with their tags, have room; the lowest tier's go first.

        Raises:
            UserError: where none has, or all must have and do not.
        """
        room = self.recent - (self.history or 0)
        beyond = np.cumsum(lengths[::-1])[::-1] > room
        if beyond.any() and (self.history is None or beyond.all()):
            keys = "" if self.history is None else f" beside {self.history} rows of history (reads.history)"
            raise UserError(
                f"roll-outs take {sum(lengths)} rows with their tags, and R has {self.recent}{keys}: "
                "make window.recent longer, or writes.samples or writes.tokens fewer"
            )
        return ~beyond

    def assemble(
        self, text: Tokens, boundary: int, framed: Sequence[Tokens], kept: Kept | None = None
    ) -> Assembled:
        """Windows of ``text`` [batch, columns], whose column ``boundary`` holds the boundary's token.

        Args:
            framed: roll-outs of each tier that is read, [batch, K, m + 2].
            kept: [batch, roll-outs], which of them to show; None: all that have room.
        """
        flat = [part.reshape(len(text), -1) for part in framed]
        lengths = [part.shape[2] for part in framed for _ in range(part.shape[1])]
        shown: Kept = np.broadcast_to(self.fitting(lengths), (len(text), len(lengths)))
        shown = shown if kept is None else shown & kept
        rollouts: Tokens = np.concatenate([np.empty((len(text), 0), np.int64), *flat], axis=1)
        after: Places = np.concatenate(
            [np.empty(0, np.int32), *(np.arange(size, dtype=np.int32) for size in lengths)]
        )
        rows = [
            _one(text[i], boundary, rollouts[i], after, np.repeat(shown[i], lengths), self.recent)
            for i in range(len(text))
        ]
        tokens, positions, origin = (np.stack(column) for column in zip(*rows, strict=True))
        return Assembled(tokens, positions, origin, tokens.shape[1] - (text.shape[1] - boundary))


def _one(
    text: Tokens, boundary: int, rollouts: Tokens, after: Places, shown: Kept, recent: int
) -> tuple[Tokens, Places, Places]:
    """Tokens, positions and origins of one window; a roll-out's row j stands where C's row j does."""
    rollouts, after = rollouts[shown], after[shown]
    history = min(recent - len(rollouts), boundary)
    behind: Places = np.arange(len(text) - boundary, dtype=np.int32)
    before: Places = np.arange(history, dtype=np.int32)
    tokens = np.concatenate([text[boundary - history : boundary], rollouts, text[boundary:]])
    positions = np.concatenate([before, history + after, history + behind])
    origin = np.concatenate([boundary - history + before, np.full_like(after, boundary), boundary + behind])
    return tokens, positions, origin
