"""Held-out loss while a run goes on, of each source of ``data.valid``, on the same windows each time."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import numpy.typing as npt
import torch

from megarc.data import Batch, Stream
from megarc.model import kept_of
from megarc.parallel import all_reduce_sum
from megarc.train.config import RunConfig
from megarc.train.engine import Engine, to_tensors

_ROWS = 2048  # of a forward pass; more of them are hardly faster


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A source's negative log-likelihood in nats, summed over ``tokens`` predicted ones (or their weights).

    ``right`` counts, alike, those of them that were the model's likeliest.
    """

    name: str
    nll: float
    right: float
    tokens: float
    bytes_per_token: float | None

    def in_units(self) -> dict[str, float]:
        """In nats and bits a token and, where the text's bytes are known, bits a byte; the share of right guesses."""
        nats, right = ((one / self.tokens if self.tokens else math.nan) for one in (self.nll, self.right))
        values = {"nats_per_token": nats, "bits_per_token": nats / math.log(2), "accuracy": right}
        if self.bytes_per_token:
            values["bits_per_byte"] = nats / math.log(2) / self.bytes_per_token
        return values


def losses_by_width(engine: Engine, stream: Stream, windows: int) -> dict[str, HeldOut]:
    """Of a nested model: the loss of each narrower width on all sources, by its name for a metric."""
    model = engine.config.model
    return {
        f"width_{float(width):.4g}": together_of(heldout_losses(engine, stream, windows, kept))
        for width in (model.nested or [])
        if (kept := kept_of(model, width)) is not None
    }


def together_of(sources: Sequence[HeldOut]) -> HeldOut:
    """All windows that were scored, as one text."""
    tokens = sum(one.tokens for one in sources)
    known = [one.bytes_per_token * one.tokens for one in sources if one.bytes_per_token is not None]
    bytes_per_token = sum(known) / tokens if len(known) == len(sources) and tokens else None
    nll, right = (sum(counts) for counts in zip(*((one.nll, one.right) for one in sources), strict=True))
    return HeldOut("all", nll, right, tokens, bytes_per_token)


def heldout_losses(engine: Engine, stream: Stream, windows: int, kept: int | None = None) -> list[HeldOut]:
    """Each source's loss on its first windows, of ``windows`` in all; the same on every rank.

    Args:
        kept: of a nested model, neurons of each group that take part; None: all.
    """
    sizes = stream.sizes
    begin, found = 0, []
    for source, name, size, count in zip(
        stream.sources, short_names(stream), sizes, share_out(windows, sizes), strict=True
    ):
        nll, right, tokens = _loss_of(engine, stream, begin, count, kept)
        found.append(HeldOut(name, nll, right, tokens, source.facts.bytes_per_token))
        begin += size
    return found


def windows_at_once(config: RunConfig, rows: int, windows: int) -> int:
    """How many of ``windows`` with so many rows a data rank scores in one forward pass.

    Small micro-batches make slow matrix products (docs/speed.md). Without a backward pass a block's activations are
    gone when the next one begins, so as many micro-batches as there are blocks take no more memory than one in
    training.
    A pipeline and compiled code have shapes that stay, and recomputation says that memory is short.
    """
    micro_batch, execution = config.batch.micro_batch, config.execution
    if config.parallel.pipeline > 1 or execution.compile or execution.recompute != "none":
        return micro_batch
    times = min(config.model.layers, max(1, _ROWS // (micro_batch * rows)))
    return min(micro_batch * times, max(1, windows))


def share_out(windows: int, sizes: Sequence[int]) -> list[int]:
    """``windows`` for sources of ``sizes`` windows: each as many, but for those that have fewer; at least one each."""
    counts, left = [0] * len(sizes), windows
    for place, which in enumerate(sorted(range(len(sizes)), key=lambda number: sizes[number])):
        counts[which] = min(sizes[which], max(1, left // (len(sizes) - place)))
        left -= counts[which]
    return counts


def short_names(stream: Stream) -> list[str]:
    """A name of each source for a metric: the end of its path, as long as it takes to tell them apart."""
    paths = [PurePath(source.facts.name).parts for source in stream.sources]
    for depth in range(1, max(map(len, paths)) + 1):
        names = [re.sub(r"[^\w.-]+", "_", "-".join(parts[-depth:])).strip("_") for parts in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{name}-{number}" for number, name in enumerate(names)]


@torch.no_grad()
def _loss_of(
    engine: Engine, stream: Stream, begin: int, windows: int, kept: int | None
) -> tuple[float, float, float]:
    """Negative log-likelihood, right guesses and predicted tokens of samples ``begin .. begin + windows - 1``.

    Every rank runs the same number of batches (ZeRO 3 gathers weights in each);
    those beyond the last window count nothing.
    """
    groups = engine.groups
    ranks, rank = groups.data.size, groups.data.rank
    size = windows_at_once(engine.config, stream.window.rows, -(-windows // ranks))
    total = torch.zeros(3, dtype=torch.float64, device=groups.device)
    for first in range(0, windows, size * ranks):
        start = first + rank * size
        batch = _some(stream, begin + start, min(size, windows - start), size)
        stream.check_ids(batch, engine.config.model.tokens)
        weights = torch.as_tensor(batch.weights)
        micro_batch = to_tensors(batch, groups.device, sharing=engine.sharing)
        total[:2] += engine.evaluate(micro_batch._replace(kept=kept))
        if groups.context.rank == 0:  # the other context ranks have the same samples
            total[2] += weights.sum()
    nll, right, weight = all_reduce_sum(total, groups.replicas).tolist()
    return nll, right, weight


def _some(stream: Stream, start: int, count: int, size: int) -> Batch:
    """``count`` windows from ``start`` on (none where below 1), filled up to ``size`` with weight 0."""
    read = stream.read(start, count) if count > 0 else stream.read(0, 1)
    present = max(count, 0)
    rows = np.minimum(np.arange(size), len(read.tokens) - 1)  # the last one again
    width = stream.window.stride if read.weights is None else read.weights.shape[1]
    weights: npt.NDArray[np.float32] = np.zeros((size, width), dtype=np.float32)
    weights[:present] = 1.0 if read.weights is None else read.weights[:present]
    return Batch(
        tokens=read.tokens[rows],
        recent=read.recent[rows],
        samples=read.samples[rows],
        weights=weights,
        documents=None if read.documents is None else read.documents[rows],
        positions=None if read.positions is None else read.positions[rows],
        recent_end=None if read.recent_end is None else read.recent_end[rows],
    )
