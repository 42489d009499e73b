"""How well a tier predicts C: exact cross-entropy, token by token, the same tokens whatever R holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from megarc.attention import on_device
from megarc.data import Maker, Samples, Source, open_source
from megarc.data.source import read_many
from megarc.interval import seen_by
from megarc.tiers.rollout_source import makers
from megarc.tiers.stack_plan import HELDOUT, StackPlan
from megarc.train import SavedModel, load_model
from megarc.window import Window

Sums: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Losses:
    """``nll`` in nats and ``weights``, [windows, c]: column j is the (j + 1)-th token after the boundary."""

    nll: Sums
    weights: Sums

    @property
    def tokens(self) -> int:
        return int((self.weights > 0).sum())

    @property
    def nats_per_token(self) -> float:
        """The weighted mean."""
        return float((self.nll * self.weights).sum() / self.weights.sum())

    @property
    def standard_error(self) -> float:
        """Of ``nats_per_token``; windows are the independent units."""
        return self._error(self.nll)

    def above(self, other: Losses) -> tuple[float, float]:
        """``(difference, standard error)`` in nats a token: how much higher this is, window by window."""
        if not np.array_equal(self.weights, other.weights):
            raise ValueError("losses of other tokens")
        difference = self.nll - other.nll
        return float((difference * self.weights).sum() / self.weights.sum()), self._error(difference)

    def by_distance(self) -> list[float]:
        """Mean nats of the first, second, ... token after the boundary [c]; NaN where none is a target."""
        with np.errstate(invalid="ignore"):
            return list((self.nll * self.weights).sum(0) / self.weights.sum(0))

    def _error(self, values: Sums) -> float:
        """Of a ratio of two sums over windows (Cochran 1977, Sampling Techniques, section 6.3)."""
        count, total = len(values), self.weights.sum()
        if count < 2:
            return math.nan
        mean = (values * self.weights).sum() / total
        residuals = ((values - mean) * self.weights).sum(1)
        return float(np.sqrt((residuals**2).sum() * count / (count - 1)) / total)


def mean_of(losses: list[Losses]) -> Losses:
    """Of models that differ in their seed: each token's mean over them."""
    return Losses(np.mean([one.nll for one in losses], axis=0), losses[0].weights)


def losses_of(
    saved: SavedModel,
    source: Source,
    window: Window,
    *,
    batch: int = 64,
    progress: Callable[[int], None] | None = None,
) -> Losses:
    """All samples of ``source``, which gives windows of ``window``.

    A model whose own window is shorter sees the newest rows of it; the targets are those of ``window``.
    """
    parts: list[tuple[Sums, Sums]] = []
    for first in range(0, len(source), batch):
        samples = read_many(source, np.arange(first, min(first + batch, len(source))), window)
        parts.append(_losses(saved, samples, window))
        if progress is not None:
            progress(len(samples.tokens))
    nll, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Losses(nll, weights)


def score_tiers(plan: StackPlan, inner: Mapping[str, Maker]) -> dict[str, Losses]:
    """Each tier of ours on the same tokens: C of the held-out windows, read as each tier reads."""
    found = {}
    for name in plan.own:
        saved, config = load_model(plan.run(name).folder), plan.config.heldout
        window = plan.window.build()
        if plan.reads(name):
            window = saved.config.window.build()
            config = plan.reading_source(name, HELDOUT, drop=0.0)
        found[name] = losses_of(saved, open_source(config, window, makers(inner)), window)
    return found


def _losses(saved: SavedModel, samples: Samples, window: Window) -> tuple[Sums, Sums]:
    nll = row_losses(saved, samples.tokens, window, samples.documents, samples.positions)
    weights = np.ones_like(nll) if samples.weights is None else samples.weights.astype(np.float64)
    return nll, weights


@torch.inference_mode()
def row_losses(
    saved: SavedModel,
    tokens: npt.NDArray[np.int64],
    window: Window,
    documents: npt.NDArray[np.int32] | None = None,
    positions: npt.NDArray[np.int32] | None = None,
) -> Sums:
    """Negative log-likelihoods [batch, c] of C's targets in ``tokens`` [batch, rows + 1], float64."""
    own = saved.config.window.build()
    rows = min(own.rows, window.rows)
    recent = min(own.recent, max(rows - window.causal, 0)) if own.recent else 0
    device = next(saved.model.parameters()).device

    def newest(array: npt.NDArray[np.int32] | None) -> torch.Tensor | None:
        return None if array is None else torch.as_tensor(array[:, -rows:]).to(device)

    given = torch.as_tensor(tokens[:, -(rows + 1) :].astype(np.int64)).to(device)
    loss_rows = slice(rows - window.stride, rows)
    shown = None if documents is None else documents[:, -rows:]
    seen = seen_by(rows, np.full(len(tokens), recent, dtype=np.int32), shown)
    loss = saved.model(given, loss_rows, on_device(seen, device), positions=newest(positions))
    return loss.nll.double().cpu().numpy()
