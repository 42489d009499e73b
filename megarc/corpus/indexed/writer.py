"""Writes a corpus, P.bin and P.idx, so that a kill at any moment leaves it whole or absent."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from megarc.atomic_write import (
    cannot_write,
    discard,
    open_partial,
    publish,
    sync,
    sync_folder,
    written_atomically,
)
from megarc.corpus.indexed.answer_starts import answers_path, packed_answers
from megarc.corpus.indexed.corpus import HEADER, MAGIC, dtype_code
from megarc.corpus.indexed.digest import Tree, TreeDigest, content_digest, file_digest
from megarc.corpus.indexed.manifest import manifest_path

_ENTRIES_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Written:
    """What a writer wrote: the facts that a manifest needs."""

    documents: int
    tokens: int
    dtype: str
    content_digest: str
    idx_digest: str
    bin_tree: Tree
    answers_digest: str | None = None


class IndexedWriter:
    """Writes documents, in order, to the corpus ``prefix``.

    ``with IndexedWriter(prefix, dtype) as writer: writer.add(...); facts = writer.finish()``.
    Nothing of an earlier corpus of that name is touched before ``finish``, which
    removes its manifest and index first, then renames the new files.

    Raises:
        UserError: where the disk is full or the place cannot be written.
    """

    def __init__(self, prefix: str | Path, dtype: npt.DTypeLike) -> None:
        self.prefix, self.dtype = Path(prefix), np.dtype(dtype)
        self._bin_path, self._idx_path = Path(f"{prefix}.bin"), Path(f"{prefix}.idx")
        self._bin = open_partial(self._bin_path)
        self._idx = open_partial(self._idx_path)
        self._tree = TreeDigest()
        self._lengths: list[npt.NDArray[np.int32]] = []  # of documents, empty ones included
        self._answers: list[npt.NDArray[np.uint32]] = []  # tokens before each one's answer
        self._open = True

    def add(
        self,
        tokens: npt.NDArray[Any],
        lengths: npt.ArrayLike | None = None,
        answers: npt.ArrayLike | None = None,
    ) -> None:
        """Appends documents: their tokens end to end, and each one's length (None: one document).

        Args:
            answers: the tokens before each one's answer, where documents are divided; with all or none.
        """
        counts = np.asarray([len(tokens)] if lengths is None else lengths, dtype=np.int32)
        data = memoryview(np.ascontiguousarray(tokens, dtype=self.dtype)).cast("B")
        if counts.sum(dtype=np.int64) != len(tokens):
            raise ValueError(f"{len(tokens)} tokens, but the lengths add up to {counts.sum()}")
        try:
            self._bin.write(data)
        except OSError as error:
            raise cannot_write(self._bin_path, error) from error
        self._tree.update(data)
        self._lengths.append(counts)
        if answers is not None:
            self._answers.append(np.asarray(answers, dtype=np.uint32))

    def finish(self) -> Written:
        """Syncs, puts both files in place and says what they hold."""
        lengths = np.concatenate([np.empty(0, np.int32), *self._lengths])
        try:
            self._write_index(lengths)
            sync(self._bin)
            sync(self._idx)
        except OSError as error:
            raise cannot_write(self._bin_path, error) from error
        index, tree = file_digest(Path(self._idx.name)), self._tree.finish()
        for stale in (manifest_path(self.prefix), self._idx_path, answers_path(self.prefix)):
            stale.unlink(missing_ok=True)
        sync_folder(self.prefix.parent)
        publish(self._bin, self._bin_path)
        answers = self._write_answers(len(lengths))
        publish(self._idx, self._idx_path)
        self._open = False
        content = content_digest(dtype_code(self.dtype), index, tree.root, answers)
        tokens = int(lengths.sum(dtype=np.int64))
        return Written(len(lengths), tokens, self.dtype.name, content, index, tree, answers)

    def __enter__(self) -> IndexedWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            discard(self._bin)
            discard(self._idx)

    def _write_answers(self, documents: int) -> str | None:
        """Puts P.answers in place, where there are answers; its digest."""
        if not self._answers:
            return None
        answers = np.concatenate(self._answers)
        if len(answers) != documents:
            raise ValueError(f"{documents} documents, but the answers of {len(answers)}")
        data = packed_answers(answers)
        with written_atomically(answers_path(self.prefix)) as file:
            file.write(data)
        return hashlib.sha256(data).hexdigest()

    def _write_index(self, documents: npt.NDArray[np.int32]) -> None:
        """An empty document is no sequence: it repeats the index of the next one."""
        sequences = documents[documents > 0]
        self._idx.write(HEADER.pack(MAGIC, 1, dtype_code(self.dtype), len(sequences), len(documents) + 1))
        self._idx.write(sequences.astype("<i4").tobytes())
        self._write_running_sum(sequences, self.dtype.itemsize)
        self._write_running_sum(documents > 0, 1)
        self._idx.write(np.int64(len(sequences)).astype("<i8").tobytes())

    def _write_running_sum(self, values: npt.NDArray[Any], scale: int) -> None:
        """The sum of all values before each one, times ``scale``, as i64."""
        total = 0
        for first in range(0, len(values), _ENTRIES_AT_ONCE):
            sums = np.cumsum(values[first : first + _ENTRIES_AT_ONCE], dtype=np.int64)
            before = np.concatenate([[total], total + sums[:-1]])
            self._idx.write((before * scale).astype("<i8").tobytes())
            total += int(sums[-1])
