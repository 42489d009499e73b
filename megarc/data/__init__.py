"""Tokens on disk to batches.

In: keys (``DataConfig``), a ``Window``, a seed. Out: a ``Stream``, which gives
any run of samples as a ``Batch`` of numpy arrays, the same ones whoever asks.
Nothing is stored and nothing is consumed: resuming is asking for another number.

    DataConfig -> open_stream -> Stream.read(first, count) -> Batch
                  sources in an order: source.py, order.py
"""

from typing import TYPE_CHECKING

from megarc.lazy_exports import open_when_used

if TYPE_CHECKING:
    from megarc.data.batches import Batch, part_of_step
    from megarc.data.build_stream import Maker, open_source, open_stream
    from megarc.data.config import (
        BlendStageConfig,
        DataConfig,
        LocalityConfig,
        ObjectiveConfig,
        RecentLossConfig,
        SourceConfig,
        WindowConfig,
    )
    from megarc.data.prefetch import Ahead, announcing
    from megarc.data.skipped_ranges import Gaps, around
    from megarc.data.source import BulkSource, Facts, LocatedSource, Sample, Samples, Source
    from megarc.data.stream import Share, Stream
    from megarc.data.tasks import Pair, Part, Task, parts, read_task, split_ids
    from megarc.data.transcripts import KINDS as SEGMENT_KINDS
    from megarc.data.transcripts import Segments as SegmentsOf
    from megarc.data.transcripts import weights_of
    from megarc.data.window_shapes import Mixed, Shapes, predicted_by, processed_by
    from megarc.data.windows import StridedCorpus

open_when_used(__name__, __file__)

__all__ = [
    "SEGMENT_KINDS",
    "Ahead",
    "Batch",
    "BlendStageConfig",
    "BulkSource",
    "DataConfig",
    "Facts",
    "Gaps",
    "LocalityConfig",
    "LocatedSource",
    "Maker",
    "Mixed",
    "ObjectiveConfig",
    "Pair",
    "Part",
    "RecentLossConfig",
    "Sample",
    "Samples",
    "SegmentsOf",
    "Shapes",
    "Share",
    "Source",
    "SourceConfig",
    "Stream",
    "StridedCorpus",
    "Task",
    "WindowConfig",
    "announcing",
    "around",
    "open_source",
    "open_stream",
    "part_of_step",
    "parts",
    "predicted_by",
    "processed_by",
    "read_task",
    "split_ids",
    "weights_of",
]
