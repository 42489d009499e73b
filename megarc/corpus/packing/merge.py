"""Shards, each sorted, merged into one sorted stream; and that stream written as corpora."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from megarc.corpus.indexed.manifest import PackSettings
from megarc.corpus.indexed.writer import IndexedWriter, Written
from megarc.corpus.packing.document_keys import split_numbers
from megarc.corpus.packing.duplicates import first_ones
from megarc.corpus.packing.pack_piece import arranged, gathered
from megarc.corpus.packing.shard import Batch, Shard
from megarc.progress import Bar

_TOKENS_AT_ONCE = 4_000_000
_Place = tuple[int, int, int]  # key, input, offset


def merged(shards: Sequence[Shard], keep: Mapping[int, Any] | None = None) -> Iterator[Batch]:
    """All documents of ``shards`` in order, in batches of a few million tokens.

    Args:
        keep: for the number of a shard, which of its documents stay ``[documents]``.
    """
    full = [(number, shard) for number, shard in enumerate(shards) if shard.facts.documents]
    masks = keep or {}
    cursors = [_Cursor(shard, masks.get(number), _at_once(shards)) for number, shard in full]
    cursors.sort(key=lambda cursor: cursor.first)
    if all(left.last < right.first for left, right in pairwise(cursors)):
        for cursor in cursors:  # one after another
            cursor.step *= len(cursors)
            while cursor.more():
                yield cursor.take(cursor.bound())
        return
    while cursors := [cursor for cursor in cursors if cursor.more()]:
        bound = min(cursor.bound() for cursor in cursors)
        taken = [cursor.take(bound) for cursor in cursors]
        records = np.concatenate([batch[0] for batch in taken])
        yield arranged(records, np.concatenate([batch[1] for batch in taken]))


def write_corpora(
    shards: Sequence[Shard], prefix: Path, settings: PackSettings, dtype: Any, bar: Bar
) -> dict[str | None, tuple[Written, int, int]]:
    """Writes P, or P_SPLIT for each split.

    Returns:
        For each split (or None) what was written, its bytes of text, the duplicates left out of all.
    """
    keep = first_ones(shards) if settings.drop_duplicates else None
    names: list[str | None] = list(settings.splits) or [None]
    text_bytes = [0] * len(names)
    with ExitStack() as stack:
        writers = [stack.enter_context(IndexedWriter(split_prefix(prefix, name), dtype)) for name in names]
        for records, tokens in merged(shards, keep):
            bar.advance(len(tokens))
            for number, part, some in _parted(records, tokens, settings):
                writers[number].add(some, part["tokens"], part["answer"] if settings.divided else None)
                text_bytes[number] += int(part["bytes"].sum())
        dropped = sum(int((~mask).sum()) for mask in keep.values()) if keep else 0
        return {
            name: (writer.finish(), size, dropped)
            for name, writer, size in zip(names, writers, text_bytes, strict=True)
        }


def split_prefix(prefix: Path, split: str | None) -> Path:
    """P, or P_SPLIT."""
    return Path(f"{prefix}_{split}") if split else prefix


def _parted(records: Any, tokens: Any, settings: PackSettings) -> Iterator[tuple[int, Any, Any]]:
    """``(number of the split, records, tokens)`` of a batch."""
    if not settings.splits:
        yield 0, records, tokens
        return
    numbers = split_numbers(records["hash"], settings.splits, settings.split_seed)
    for number in range(len(settings.splits)):
        chosen = np.flatnonzero(numbers == number)
        yield number, records[chosen], gathered(records["tokens"], tokens, chosen)


def _at_once(shards: Sequence[Shard]) -> int:
    """Documents to take from a shard at a time, so that all of them fit in memory."""
    documents = sum(shard.facts.documents for shard in shards)
    tokens = sum(shard.facts.tokens for shard in shards)
    each = max(tokens / max(documents, 1), 1)
    return max(int(_TOKENS_AT_ONCE / each / max(len(shards), 1)), 4)


class _Cursor:
    """A place in a shard, and the records that follow it."""

    def __init__(self, shard: Shard, keep: npt.NDArray[np.bool_] | None, step: int) -> None:
        self.shard, self.keep, self.step = shard, keep, step
        self.document = self.token = 0
        self.window = shard.records(0, 0)
        self.first = _place(shard.records(0, 1)[0])
        self.last = _place(shard.records(shard.facts.documents - 1, 1)[0])

    def more(self) -> bool:
        if not len(self.window):
            self.window = self.shard.records(self.document, self.step)
        return len(self.window) > 0

    def bound(self) -> _Place:
        """The last place up to which this cursor can give all of its documents."""
        return _place(self.window[-1])

    def take(self, bound: _Place) -> Batch:
        """The documents up to ``bound``."""
        count = _up_to(self.window, bound)
        records, self.window = self.window[:count], self.window[count:]
        size = int(records["tokens"].sum(dtype=np.int64))
        tokens = self.shard.tokens(self.token, size)
        if self.keep is not None:
            chosen = np.flatnonzero(self.keep[self.document : self.document + count])
            records, tokens = records[chosen], gathered(records["tokens"], tokens, chosen)
        self.document += count
        self.token += size
        return records, tokens


def _place(record: Any) -> _Place:
    return int(record["key"]), int(record["input"]), int(record["offset"])


def _up_to(records: npt.NDArray[Any], bound: _Place) -> int:
    """How many of the sorted records lie at or before ``bound``."""
    key, number, offset = bound
    low, high = (int(np.searchsorted(records["key"], np.uint64(key), side)) for side in ("left", "right"))
    tied = records[low:high]
    before = (tied["input"] < number) | ((tied["input"] == number) & (tied["offset"] <= offset))
    return low + int(before.sum())
