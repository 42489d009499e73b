"""Time to train over numbers of GPUs, and where more of them stop helping: the critical batch.

More data ranks need a larger batch, and a batch beyond the critical one, B*, needs more samples to the same loss
(McCandlish et al. 2018, 1812.06162): E(B) = E(B0) (1 + B/B*) / (1 + B0/B*).
"""

from __future__ import annotations

from typing import NamedTuple

from megarc.errors import UserError
from megarc.plan.search import Planner
from megarc.train import Lengths

_GROWS = 8  # times: the largest batch that is tried, and the range of GPUs on both sides


class Point(NamedTuple):
    """The fastest way to train on so many GPUs."""

    gpus: int
    days: float
    batch: int


def time_over_gpus(
    planner: Planner, gpus: int, critical: float | None = None
) -> tuple[list[Point], float | None]:
    """Points at powers of two times ``gpus``, and the number of GPUs from which the batch is beyond the critical one.

    Args:
        critical: in samples; None: the last of ``batch.measured``; where there is none either, samples are taken to
            be worth the same in any batch, and there is no knee.
    """
    config = planner.config
    if critical is None and config.batch.measured:
        critical = config.batch.measured[-1].batch
    lengths, first = Lengths(config), config.batch.size
    samples = lengths.batches.samples_before(lengths.total)
    counts = [gpus * times // _GROWS for times in (1, 2, 4) if gpus * times % _GROWS == 0]
    counts += [gpus * 2**times for times in range(4)]
    points = []
    for count in counts:
        found = [
            point
            for grown in (1, 2, 4, _GROWS)
            if (point := _point(planner, count, first * grown, samples, critical)) is not None
        ]
        if found:
            points.append(min(found, key=lambda point: point.days))
    planner.config = config
    if not points:
        raise UserError(f"--plots: no number of GPUs from {counts[0]} to {counts[-1]} fits the model")
    within = [point.gpus for point in points if critical is None or point.batch <= critical]
    beyond = [point.gpus for point in points if point.gpus > max(within, default=0)]
    return points, float(beyond[0]) if beyond else None


def _point(planner: Planner, gpus: int, size: int, samples: int, critical: float | None) -> Point | None:
    first = planner.traces.config.batch.size
    batch = planner.config.batch.model_copy(update={"size": size})
    planner.config = planner.config.model_copy(update={"batch": batch})
    try:
        best = planner.all(gpus, offload=False)[0]
    except UserError:
        return None
    if not best.fits:
        return None
    more = 1.0 if critical is None else (1 + size / critical) / (1 + first / critical)
    return Point(gpus, samples / size * more * best.step.seconds / 86400, size)
