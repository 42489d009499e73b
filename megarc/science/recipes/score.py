"""A trained arm on held-out targets, and what it makes of R."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from megarc.corpus import IndexedCorpus
from megarc.data import Maker, open_source
from megarc.data.source import read_many
from megarc.errors import UserError
from megarc.inference import evaluate, probe
from megarc.inference.score import ratio_error
from megarc.train import SavedModel
from megarc.window import Window

if TYPE_CHECKING:
    from megarc.science.recipes.config import CompareConfig

Sums: TypeAlias = npt.NDArray[np.float64]

_BATCH, _BLOCKS = 64, 64
_PROBED = 4_000  # targets of a corpus


@dataclass(frozen=True, slots=True)
class Scored:
    """Nats a held-out target with its standard error; what seeing R both ways saves, with the error of that.

    For a causal arm ``both_ways`` is what an R that it sees both ways would save.
    """

    nats: float
    error: float
    both_ways: float
    both_ways_error: float


def score(
    comparison: CompareConfig, saved: SavedModel, window: Window, makers: Mapping[str, Maker] | None = None
) -> Scored:
    """On the comparison's held-out source: the same targets for every arm.

    Raises:
        UserError: where the source is too short.
    """
    source = comparison.run.data.valid[0]
    if source.kind == "corpus" and source.path is not None:
        return _on_text(comparison, saved, window, IndexedCorpus(source.path))
    rows, recent = window.rows, comparison.run.window.recent
    given = open_source(source, comparison.run.window.build(), makers)
    if len(given) < 1:
        raise UserError("run.data.valid has no sample; give another source")
    losses: dict[int, list[Sums]] = {0: [], recent: [], window.recent: []}
    weights: list[Sums] = []
    for first in range(0, min(comparison.targets, len(given)), _BATCH):
        count = min(_BATCH, comparison.targets - first, len(given) - first)
        samples = read_many(given, np.arange(first, first + count), comparison.run.window.build())
        tokens = torch.as_tensor(samples.tokens.astype(np.int64))
        weight = np.ones((count, window.stride)) if samples.weights is None else samples.weights
        weights.append(weight.sum(1).astype(np.float64))
        for seen, found in losses.items():
            with torch.inference_mode():
                nll = saved.model(tokens, slice(rows - window.stride, rows), seen).nll
            found.append((nll.double().numpy() * weight).sum(1))
    whole = {seen: np.concatenate(found) for seen, found in losses.items()}
    counts = np.concatenate(weights)
    nats, error = _mean(whole[window.recent], counts)
    return Scored(nats, error, *_mean(whole[0] - whole[recent], counts))


def _on_text(comparison: CompareConfig, saved: SavedModel, window: Window, corpus: IndexedCorpus) -> Scored:
    base = comparison.run.window.build()
    first = Window(base.recent, base.causal, base.stride).first_target
    end = min(len(corpus.tokens), first + comparison.targets)
    if end <= first:
        raise UserError(
            f"{corpus.prefix} has {len(corpus.tokens)} tokens, and a window {base} reads {base.tokens}"
        )
    isolated = corpus.documents_of if comparison.run.data.documents == "isolate" else None
    found = evaluate(saved.model, corpus.tokens, window, range(first, end), documents=isolated)
    some = range(first, min(end, first + _PROBED))
    seen = probe(saved.model, corpus.tokens, window, [base.recent], some, documents=isolated).both_ways
    return Scored(found.nats_per_token, found.standard_error, seen.mean, seen.error)


def _mean(sums: Sums, counts: Sums) -> tuple[float, float]:
    """Of windows' sums over their weights, with the error from blocks of windows."""
    block: npt.NDArray[np.int64] = np.arange(len(sums)) * min(_BLOCKS, len(sums)) // len(sums)
    blocked = [np.bincount(block, each) for each in (sums, counts)]
    error = ratio_error(*blocked)
    return float(sums.sum() / counts.sum()), error if math.isfinite(error) else math.nan
