"""How many samples each source has given so far, exactly: what a mixture that changes has come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from megarc.data import Gaps, Stream
from megarc.train.engine import Engine
from megarc.train.loop import Done, Moment, Observer
from megarc.train.metrics.heldout_loss import short_names


class SourceCounts(Observer):
    """``data/NAME/samples`` of each source, where there are several; of the run's present phase."""

    def __init__(self, stream: Stream, gaps: Gaps) -> None:
        self._stream, self._gaps, self._samples = stream, gaps, 0
        self._names = short_names(stream)

    def start(self, engine: Engine, moment: Moment) -> None:
        self._samples = moment.samples

    def settled(self, engine: Engine, moment: Moment, steps: Sequence[Done]) -> None:
        self._samples = moment.samples

    def values(self) -> Mapping[str, float]:
        """For a line of metrics."""
        if len(self._names) < 2:
            return {}
        first = max(0, self._gaps.begin)
        totals = [0] * len(self._names)
        for begin, count in self._gaps.runs(first, max(0, self._samples - first)):
            after, before = self._stream.counts(begin + count), self._stream.counts(begin)
            totals = [total + a - b for total, a, b in zip(totals, after, before, strict=True)]
        return {f"data/{name}/samples": total for name, total in zip(self._names, totals, strict=True)}
