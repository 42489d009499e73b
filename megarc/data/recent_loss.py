"""A loss on R, or on other rows: some of their tokens are hidden, and the row before each predicts it.

Rows of R see all of R, so a row knows its own target unless that is hidden: then nothing in the window shows it.
The head and its shift by one stay as they are (Dual-objective language models, 2512.14549, train both losses alike).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from megarc.data.batches import Batch
from megarc.data.config import RecentLossConfig
from megarc.data.counter_random import chance, key_of, table, words
from megarc.data.source import Indices, Source, Weights
from megarc.errors import UserError


@dataclass(frozen=True, slots=True)
class HiddenRecent:
    """Hides a ``mask`` share of R's tokens in a ``share`` of the samples; which ones, the sample's number decides.

    Attributes:
        weight: of a hidden token's loss.
        token: the id that stands in its place.
        rows: in which rows: of R, of the context (rows without a loss of their own), all.
    """

    share: float
    mask: float
    weight: float
    token: int
    seed: int
    phase: int
    rows: str = "recent"

    @classmethod
    def of(cls, config: RecentLossConfig, sources: list[Source], seed: int, phase: int) -> HiddenRecent:
        """For these sources.

        Raises:
            UserError: where they do not know the token.
        """
        token = _id_of(config.token, sources)
        return cls(config.share, config.mask, config.weight, token, seed, phase, config.rows)

    def hide(self, batch: Batch, weights: Weights) -> npt.NDArray[np.bool_]:
        """Which tokens of a batch are hidden: [B, n]. The row before each lies in the same document.

        Args:
            weights: of the loss of all rows, before any token is hidden: [B, n].
        """
        return self.draw(batch.samples, weights.shape[1]) & self._may_be_hidden(batch, weights)

    def draw(self, samples: Indices, rows: int) -> npt.NDArray[np.bool_]:
        """Which tokens of the windows ``samples`` [B] are hidden, were they all of R: [B, rows]."""
        chosen = chance(words(key_of("loss on R", self.seed, self.phase), samples), self.share)
        hidden: npt.NDArray[np.bool_] = np.zeros((len(samples), rows), dtype=bool)
        if chosen.any():
            word = table(key_of("hidden in R", self.seed, self.phase), samples[chosen], rows)
            hidden[chosen] = chance(word, self.mask)
        return hidden

    def _may_be_hidden(self, batch: Batch, weights: Weights) -> npt.NDArray[np.bool_]:
        if self.rows == "recent":
            ends = batch.recent[:, None] if batch.recent_end is None else batch.recent_end
            found: npt.NDArray[np.bool_] = np.arange(weights.shape[1])[None, :] < ends
        elif self.rows == "context":
            found = weights == 0
            found[:, 1:] &= weights[:, :-1] == 0
        else:
            found = np.ones(weights.shape, dtype=bool)
        found[:, 0] = False
        if batch.documents is not None:
            found[:, 1:] &= batch.documents[:, 1:] == batch.documents[:, :-1]
        return found


def _id_of(token: str | int, sources: list[Source]) -> int:
    if isinstance(token, int):
        known = [facts.vocabulary for source in sources if (facts := source.facts).vocabulary]
        if token < 0 or any(token >= size for size in known):
            raise UserError(
                f"objective.recent.token is {token}, and the data has {min(known)} tokens; give an id of it"
            )
        return token
    found = {source.facts.name: (source.facts.reserved or {}).get(token) for source in sources}
    for name, number in found.items():
        if number is None:
            raise UserError(
                f"objective.recent.token is '{token}', which {name} does not reserve; pack it with a tokenizer that "
                "does, or give the id of a token that never stands in the text"
            )
    ids = set(found.values())
    if len(ids) > 1:
        raise UserError(
            f"objective.recent.token '{token}' has different ids in the sources: {found}; pack them alike"
        )
    return int(ids.pop() or 0)
