"""A conditional random field as a mixer: a chain of hidden states, of which a row writes what it expects."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from megarc.attention import Cached, LayerCache
from megarc.interval import Seen
from megarc.model.block_part import PartCost, Split
from megarc.model.config import ModelConfig
from megarc.model.layers import ColumnLinear
from megarc.model.mixers.chain import bounded, messages
from megarc.model.mixers.directions import Documents, directions
from megarc.model.mixers.gated_output import GatedOutput
from megarc.model.mixers.mixer import Mixer
from megarc.model.mixers.ssm import decay_rates
from megarc.model.parameter_record import matrix
from megarc.parallel import TensorParallel
from megarc.window import Window


class RandomField(Mixer):
    """A linear chain of S states a head over the rows (``chain``).

    A row's potentials are a projection of it, and transitions are learned: the softmax of a product of two narrow
    matrices, with more on the diagonal (``staying``). A row of R has the state's marginal given all of R, a row of C
    its distribution given the rows up to itself, which begins from the marginal of R's last row. Its output is the
    expected value vector, a learned one for each state, normalised and gated (``GatedOutput``). Each tensor rank has
    some of the heads. Distributions are float32 at least.
    """

    def __init__(self, config: ModelConfig, engine: str, layer: int, tensor: TensorParallel) -> None:
        super().__init__(config, engine, layer, tensor)
        self.tensor, self.layer, self.states = tensor, layer, config.crf_states
        self.heads = config.heads // tensor.size
        self.unit = 1 / config.initial_std  # tables begin with entries of size 1
        self.staying = staying(config.heads, self.states)[tensor.rank * self.heads :][: self.heads]
        rows = config.heads * self.states
        self.potential = ColumnLinear(config.hidden, rows, "hidden", tensor)
        self.source = matrix(rows, config.crf_rank, "embedding", tensor, split=0)
        self.target = matrix(rows, config.crf_rank, "embedding", tensor, split=0)
        self.value = matrix(rows, config.width_of_head, "embedding", tensor, split=0)
        self.output = GatedOutput(config, tensor)

    def forward(
        self,
        x: Tensor,
        seen: Seen,
        cache: Cached | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        x = self.tensor.enter(x)
        rows = x.shape[1]
        wide = torch.promote_types(x.dtype, torch.float32)
        # [batch, rows, heads * states] -> [batch, heads, rows, states]
        potentials = self.potential(x).unflatten(2, (self.heads, self.states)).transpose(1, 2)
        before = None if cache is None else cache.recall(self.layer)
        where = directions(seen, rows) if before is None else 0
        marginal, last = marginals(bounded(potentials.to(wide)), self._transition(wide), where, before)
        if cache is not None:
            cache.remember(self.layer, [last], rows)
        values = self._each_head(self.value, wide)
        expected = marginal @ (values - values.mean(1, keepdim=True))
        return self.output(expected.to(x.dtype), x)

    def _transition(self, wide: torch.dtype) -> Tensor:
        """E, [heads, states, states]: rows are distributions."""
        source, target = self._each_head(self.source, wide), self._each_head(self.target, wide)
        scores = bounded(source @ target.transpose(1, 2) * source.shape[-1] ** -0.5)
        stay = torch.tensor(self.staying, dtype=wide, device=scores.device)[:, None, None]
        return (scores + stay * torch.eye(self.states, dtype=wide, device=scores.device)).softmax(-1)

    def _each_head(self, table: Tensor, wide: torch.dtype) -> Tensor:
        """[heads * states, ..] -> [heads, states, ..]."""
        return table.to(wide).unflatten(0, (self.heads, self.states)) * self.unit

    @staticmethod
    def cost(config: ModelConfig, window: Window) -> PartCost:
        heads, states, rows = config.heads, config.crf_states, config.heads * config.crf_states
        by_row = config.hidden * rows + GatedOutput.elements(config)
        recent = directions(window.recent, window.rows)
        assert isinstance(recent, int)
        # Each way a row's distribution is multiplied by the transitions once, then the marginal by the values.
        chain = 2 * heads * states**2 * (window.rows + recent) + 2 * rows * config.width_of_head * window.rows
        return PartCost(
            matrices=by_row + rows * (2 * config.crf_rank + config.width_of_head),
            gains=config.width_of_head,
            matrix_flops=2 * by_row * window.rows + chain,
        )

    @staticmethod
    def splits(config: ModelConfig) -> list[Split]:
        return [Split("model.heads", config.heads)]

    @staticmethod
    def cache_shape(config: ModelConfig, ranks: int) -> LayerCache:
        return LayerCache(states=((config.heads // ranks, config.crf_states),))


def marginals(
    potentials: Tensor, transition: Tensor, where: int | Documents, before: list[Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Of every row's state, [batch, heads, rows, states]; and the distribution behind the last row.

    Args:
        potentials: [batch, heads, rows, states].
        transition: [heads, states, states].
        where: as ``directions`` gives it.
        before: the distribution before the first row, where rows of C follow others.
    """
    back = transition.transpose(1, 2)
    if isinstance(where, Documents):
        after = messages(potentials, transition, where.first).after
        behind = messages(potentials.flip(2), back, where.last.flip(1)).before.flip(2)
        both = after * behind
    else:
        after = both = messages(potentials, transition, before=None if before is None else before[0]).after
        if where:
            behind = messages(potentials[:, :, :where].flip(2), back).before.flip(2)
            both = torch.cat([after[:, :, :where] * behind, after[:, :, where:]], 2)
    return both / both.sum(-1, keepdim=True), after[:, :, -1]


def staying(heads: int, states: int) -> list[float]:
    """What is added to the score of staying, by head, so that transitions that are not learned yet leave a state

    within 2 rows at head 0, and within 1,024 at the last.
    """
    return [math.log((1 - leave) * (states - 1) / leave) for leave in decay_rates(heads)]
