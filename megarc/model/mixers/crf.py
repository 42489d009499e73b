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
from megarc.model.mixers.chain import bounded
from megarc.model.mixers.chain_operator import compiled_marginals
from megarc.model.mixers.directions import directions
from megarc.model.mixers.gated_output import GatedOutput
from megarc.model.mixers.marginals import marginals
from megarc.model.mixers.mixer import Mixer
from megarc.model.mixers.ssm import decay_rates
from megarc.model.parameter_record import matrix
from megarc.parallel import TensorParallel
from megarc.window import Window


class RandomField(Mixer):
    """A linear chain of S states a head over the rows (``chain``).

    A row's potentials are a projection of it, and transitions are learned: the softmax of a product of two narrow
    matrices, with more on the diagonal (``staying``). With several of them (``crf_transitions``), the step to a row is
    their mean with weights that are another projection of it, so that the next state depends on token and state.

    A row of R has the state's marginal given all of R, a row of C its distribution given the rows up to itself, which
    begins from the marginal of R's last row. Its output is the expected value vector, a learned one for each state,
    normalised and gated (``GatedOutput``). Each tensor rank has some of the heads. Distributions are float32 at least.
    """

    def __init__(self, config: ModelConfig, engine: str, layer: int, tensor: TensorParallel) -> None:
        super().__init__(config, engine, layer, tensor)
        self.tensor, self.layer = tensor, layer
        self.states, self.transitions = config.crf_states, config.crf_transitions
        self.heads = config.heads // tensor.size
        self.unit = 1 / config.initial_std  # tables begin with entries of size 1
        self.staying = staying(config.heads, self.states)[tensor.rank * self.heads :][: self.heads]
        rows = config.heads * self.states
        self.potential = ColumnLinear(config.hidden, rows, "hidden", tensor, own_type=True)
        scores = rows * self.transitions
        self.source = matrix(scores, config.crf_rank, "embedding", tensor, split=0)
        self.target = matrix(scores, config.crf_rank, "embedding", tensor, split=0)
        if self.transitions > 1:
            weights = config.heads * self.transitions
            self.mixing = ColumnLinear(config.hidden, weights, "hidden", tensor, own_type=True)
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
        potentials = bounded(potentials.to(wide))
        chain = potentials, self._transition(wide), self._mixed(x, wide)
        if cache is None and torch.compiler.is_compiling():
            marginal = compiled_marginals(*chain, where)
        else:
            marginal, last = marginals(*chain, where, before)
            if cache is not None:
                cache.remember(self.layer, [last], rows)
        values = self.value.to(wide).unflatten(0, (self.heads, self.states)) * self.unit
        expected = marginal @ (values - values.mean(1, keepdim=True))
        return self.output(expected.to(x.dtype), x)

    def _transition(self, wide: torch.dtype) -> Tensor:
        """E(k), [heads, transitions, states, states]: rows are distributions."""
        shape = (self.heads, self.transitions, self.states)
        source, target = (
            table.to(wide).unflatten(0, shape) * self.unit for table in (self.source, self.target)
        )
        scores = bounded(source @ target.transpose(2, 3) * source.shape[-1] ** -0.5)
        stay = torch.tensor(self.staying, dtype=wide, device=scores.device)[:, None, None, None]
        return (scores + stay * torch.eye(self.states, dtype=wide, device=scores.device)).softmax(-1)

    def _mixed(self, x: Tensor, wide: torch.dtype) -> Tensor | None:
        """The weight of each transition in the step to a row, [batch, heads, rows, transitions]."""
        if self.transitions == 1:
            return None
        scores = self.mixing(x).unflatten(2, (self.heads, self.transitions)).transpose(1, 2)
        mixed: Tensor = scores.to(wide).softmax(-1)
        return mixed

    @staticmethod
    def cost(config: ModelConfig, window: Window) -> PartCost:
        heads, states, rows = config.heads, config.crf_states, config.heads * config.crf_states
        several = config.crf_transitions if config.crf_transitions > 1 else 0
        by_row = config.hidden * (rows + heads * several) + GatedOutput.elements(config)
        recent = directions(window.recent, window.rows)
        assert isinstance(recent, int)
        # Each way a row's distribution is multiplied by the transitions once, whose mean is made before, then the
        # marginal by the values.
        chain = 2 * heads * states**2 * (1 + several) * (window.rows + recent)
        chain += 2 * rows * config.width_of_head * window.rows
        return PartCost(
            matrices=by_row + rows * (2 * config.crf_rank * config.crf_transitions + config.width_of_head),
            gains=config.width_of_head,
            matrix_flops=2 * by_row * window.rows + chain,
        )

    @staticmethod
    def splits(config: ModelConfig) -> list[Split]:
        return [Split("model.heads", config.heads)]

    @staticmethod
    def cache_shape(config: ModelConfig, ranks: int) -> LayerCache:
        return LayerCache(states=((config.heads // ranks, config.crf_states),))


def staying(heads: int, states: int) -> list[float]:
    """What is added to the score of staying, by head, so that transitions that are not learned yet leave a state

    within 2 rows at head 0, and within 1,024 at the last.
    """
    return [math.log((1 - leave) * (states - 1) / leave) for leave in decay_rates(heads)]
