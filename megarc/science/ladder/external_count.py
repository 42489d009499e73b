"""Counts of equal keys by sorting on disk: memory stays within a budget, however many keys there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from megarc.science.ladder.packing import Keys

Counts: TypeAlias = npt.NDArray[np.int64]

_BYTES_A_KEY = 64  # of a key while it is sorted or merged: itself, its copy, its count, its place
_SAMPLES = 16  # of each run, for each part of the merge


@dataclass(frozen=True, slots=True)
class Counted:
    """Distinct keys [n] in ascending order and how often each occurs [n], mapped from disk."""

    keys: Keys
    counts: Counts

    def __len__(self) -> int:
        return len(self.keys)

    def pieces(self, size: int) -> Iterator[tuple[Keys, Counts]]:
        """The table in pieces of ``size`` keys."""
        for first in range(0, len(self.keys), size):
            some = slice(first, first + size)
            yield np.asarray(self.keys[some]), np.asarray(self.counts[some])


def keys_at_once(memory: int) -> int:
    """How many keys a piece of work may hold within ``memory`` bytes."""
    return max(1024, memory // _BYTES_A_KEY)


def count_keys(
    pieces: Iterable[Keys],
    dtype: np.dtype[Any],
    path: Path,
    memory: int,
    advance: Callable[[int], None] = lambda keys: None,
) -> Counted:
    """Sorts each piece into a run on disk, then merges the runs by ranges of keys.

    Args:
        pieces: arrays of at most ``keys_at_once(memory)`` keys of ``dtype``.
        path: the table's files are ``path.keys`` and ``path.counts``; the runs lie beside them until they are merged.
        memory: bytes.
        advance: called with how many keys more are counted.
    """
    runs = []
    for number, piece in enumerate(pieces):
        keys, counts = _counted(piece)
        runs.append(_written(keys, counts, path.with_name(f"{path.name}-run-{number}")))
        advance(len(piece))
    if not runs:
        return _written(np.empty(0, dtype), np.empty(0, np.int64), path)
    if len(runs) == 1:
        return _renamed(path.with_name(f"{path.name}-run-0"), path, dtype)
    merged = _merged(runs, path, keys_at_once(memory))
    for number in range(len(runs)):
        for file in _files(path.with_name(f"{path.name}-run-{number}")):
            file.unlink()
    return merged


def _counted(keys: Keys, weights: Counts | None = None) -> tuple[Keys, Counts]:
    """Distinct keys in ascending order, and the sum of their weights (1 each, where none are given)."""
    if weights is None:
        keys = np.sort(keys)
    else:
        order = np.argsort(keys, kind="stable")  # merges sorted runs in linear time
        keys, weights = keys[order], weights[order]
    if not len(keys):
        return keys, np.empty(0, np.int64)
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    if weights is None:
        return keys[starts], np.diff(starts, append=len(keys))
    return keys[starts], np.add.reduceat(weights, starts)


def _merged(runs: list[Counted], path: Path, size: int) -> Counted:
    """One table of all runs, a range of keys after the other; each range holds about ``size`` keys."""
    dtype = runs[0].keys.dtype
    edges = [_edges(run, runs, size) for run in runs]
    keys_file, counts_file = _files(path)
    with keys_file.open("wb") as keys_out, counts_file.open("wb") as counts_out:
        for part in range(len(edges[0]) - 1):
            cuts = [slice(edge[part], edge[part + 1]) for edge in edges]
            keys = np.concatenate([run.keys[cut] for run, cut in zip(runs, cuts, strict=True)])
            counts = np.concatenate([run.counts[cut] for run, cut in zip(runs, cuts, strict=True)])
            keys, counts = _counted(keys, counts)
            keys.tofile(keys_out)
            counts.tofile(counts_out)
    return _opened(path, dtype)


def _edges(run: Counted, runs: list[Counted], size: int) -> list[int]:
    """Where the parts of the merge begin in ``run``, and its end; the same keys divide every run."""
    parts = -(-sum(map(len, runs)) // size)
    sampled = np.sort(np.concatenate([one.keys[:: max(1, len(one) // (_SAMPLES * parts))] for one in runs]))
    dividers = sampled[[len(sampled) * part // parts for part in range(1, parts)]]
    inner = np.asarray(np.searchsorted(run.keys, dividers)).tolist()
    return [0, *inner, len(run)]


def _files(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{path.name}.keys"), path.with_name(f"{path.name}.counts")


def _written(keys: Keys, counts: Counts, path: Path) -> Counted:
    keys_file, counts_file = _files(path)
    keys.tofile(keys_file)
    counts.tofile(counts_file)
    return _opened(path, keys.dtype)


def _renamed(source: Path, path: Path, dtype: np.dtype[Any]) -> Counted:
    for old, new in zip(_files(source), _files(path), strict=True):
        old.rename(new)
    return _opened(path, dtype)


def _opened(path: Path, dtype: np.dtype[Any]) -> Counted:
    keys_file, counts_file = _files(path)
    if not keys_file.stat().st_size:  # nothing can be mapped
        return Counted(np.empty(0, dtype), np.empty(0, np.int64))
    return Counted(np.memmap(keys_file, dtype, "r"), np.memmap(counts_file, np.int64, "r"))
