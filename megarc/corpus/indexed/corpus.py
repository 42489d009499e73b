"""Megatron's .bin/.idx: a corpus on disk, read by memory map and written atomically.

    .bin   the tokens, nothing else
    .idx   9 bytes magic, u64 version = 1, u8 dtype, u64 S sequences, u64 D + 1,
           i32[S] lengths in tokens, i64[S] byte pointers, i64[D + 1] first sequence of each document;
           perhaps i8[S] modes (multimodal; ignored)

Little-endian. A document that we write is one sequence, or none where it is
empty, so an .idx of D documents without empty ones has 42 + 20 * D bytes.
"""

from __future__ import annotations

import mmap
import struct
from bisect import bisect_right
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from megarc.corpus.indexed.answer_starts import open_answers
from megarc.corpus.indexed.digest import cheap_digest
from megarc.corpus.indexed.manifest import Manifest, load_manifest
from megarc.corpus.indexed.manifest_check import check_manifest
from megarc.corpus.stored import CacheSettings, StoreCache, StoredCorpus, open_stored
from megarc.errors import UserError
from megarc.object_store import is_stored

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
DTYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16}
CHECKED_WHOLE = 1 << 20  # sequences: up to here, opening checks every entry (about 10 ms); verify always does


class IndexedCorpus:
    """The corpus P.bin + P.idx (+ P.json), opened by memory map.

    Attributes:
        prefix: P; of a corpus in a store that of the copies of its small files.
        url: of a corpus in a store, else None.
        tokens: every token, end to end, ``[tokens]`` of the type on disk; of a store ``StoredTokens``.
        lengths: tokens of each sequence, i32 ``[sequences]``.

        manifest: of P.json, None where there is none.

    Args:
        prefix: P, P.bin, P.idx, or the URL of one of them in an object store.
        compare: whether the files are those that the manifest tells of, as far as milliseconds can say.
        cache: keeps what is read from a store; None: its defaults.

    Raises:
        UserError: for a missing file, one whose structure is not that of a corpus, or a manifest of another one.
    """

    def __init__(
        self, prefix: str | Path, *, compare: bool = True, cache: CacheSettings | None = None
    ) -> None:
        self._stored: StoredCorpus | None = None
        if is_stored(str(prefix)):
            self._stored = open_stored(str(prefix), cache or StoreCache())
        self.prefix = corpus_prefix(prefix) if self._stored is None else self._stored.prefix
        with nullcontext() if self._stored is None else self._stored.named():
            self._open(compare)

    def _open(self, compare: bool) -> None:
        bin_path, idx_path = Path(f"{self.prefix}.bin"), Path(f"{self.prefix}.idx")
        for path in (idx_path, bin_path) if self._stored is None else (idx_path,):
            if not path.is_file():
                raise UserError(
                    f"no such corpus: {self.prefix} (there is no file {path}); give the prefix that "
                    "data_tools/preprocess.py wrote"
                )
        index, self.dtype = _map_index(idx_path)
        self.lengths: npt.NDArray[np.int32] = index[0]
        self._pointers, self._first_sequence = index[1], index[2]
        self._bin_bytes = bin_path.stat().st_size if self._stored is None else self._stored.bin.bytes
        self._check_against(self._bin_bytes, idx_path, bin_path)
        self.tokens: npt.NDArray[Any]  # or StoredTokens, which are read as an array is
        if not self._bin_bytes:
            self.tokens = np.empty(0, self.dtype)
        elif self._stored is None:
            self.tokens = np.memmap(bin_path, self.dtype, mode="r")
        else:
            self.tokens = cast(Any, self._stored.tokens(self.dtype))
        self.manifest: Manifest | None = load_manifest(self.prefix)
        if compare and self.manifest is not None:
            check_manifest(self.prefix, self.manifest, self.facts, self._stored)

    @property
    def name(self) -> str:
        """Its prefix or its URL, for people."""
        return str(self.prefix) if self._stored is None else self._stored.url

    @property
    def url(self) -> str | None:
        return None if self._stored is None else self._stored.url

    @property
    def facts(self) -> dict[str, Any]:
        """What the files themselves tell, by the manifest's names."""
        return {
            "documents": self.document_count,
            "tokens": len(self.tokens),
            "dtype": self.dtype.name,
        }

    @property
    def document_count(self) -> int:
        return len(self._first_sequence) - 1

    @cached_property
    def documents(self) -> npt.NDArray[np.int64]:
        """The first token of each document, ``[documents]``."""
        return self._sequence_starts()[self._first_sequence[:-1]]

    def document_starts(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The first token of each of the documents ``numbers`` [..]: reads their places, not all of them."""
        sequences = self._first_sequence[numbers]
        inside = sequences < len(self._pointers)  # an empty document at the end begins where the tokens end
        starts: npt.NDArray[np.int64] = np.full(sequences.shape, len(self.tokens), dtype=np.int64)
        starts[inside] = self._pointers[sequences[inside]] // self.dtype.itemsize
        return starts

    @cached_property
    def answers(self) -> npt.NDArray[np.uint32] | None:
        """The tokens before each document's answer, mapped, ``[documents]``; None where they are not divided."""
        return open_answers(self.prefix, self.document_count)

    def document(self, number: int) -> npt.NDArray[Any]:
        """The tokens of one document."""
        if not 0 <= number < self.document_count:
            raise UserError(f"{self.prefix} has documents 0 to {self.document_count - 1}, not {number}")
        first, last = (int(edge) for edge in self._first_sequence[number : number + 2])
        if not 0 <= first <= last <= len(self.lengths):
            raise UserError(
                f"{self.prefix}.idx is damaged: document {number} has sequences {first} to {last}"
            )
        start, stop = (self._start_of_sequence(edge) for edge in (first, last))
        if not 0 <= start <= stop <= len(self.tokens):
            raise UserError(f"{self.prefix}.idx is damaged: document {number} has tokens {start} to {stop}")
        return self.tokens[start:stop]

    def documents_of(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """The number of the document that each of the tokens start..stop-1 lies in, ``[stop - start]``.

        Takes O(log documents) steps in the mapped file and keeps nothing in memory.
        """
        if stop <= start:
            return np.empty(0, np.int64)
        width = self.dtype.itemsize
        at: npt.NDArray[np.int64] = np.arange(start, stop, dtype=np.int64) * width  # [stop - start] in bytes
        sequences = _holders(self._pointers, at)
        return _holders(self._first_sequence, sequences)

    @cached_property
    def digest(self) -> str:
        """What an order is keyed by: the manifest's content digest, else the cheap one."""
        if self.manifest:
            return self.manifest.content_digest
        return cheap_digest(self.prefix) if self._stored is None else self._stored.sampled_digest()

    def check_all(self) -> None:
        """Checks every entry of the .idx: lengths, pointers, documents.

        Raises:
            UserError: naming the first entry that is wrong.
        """
        path = f"{self.prefix}.idx"
        for first in range(0, len(self.lengths), CHECKED_WHOLE):
            some = slice(first, first + CHECKED_WHOLE)
            lengths = self.lengths[some].astype(np.int64)
            ends = self._pointers[some] + lengths * self.dtype.itemsize
            following: npt.NDArray[np.int64] = np.append(
                self._pointers[some][1:], self._start_byte(first + len(lengths))
            )
            _refuse_first(lengths < 0, first, path, "the length of sequence {} is negative")
            _refuse_first(ends != following, first, path, "sequence {} does not end where the next begins")
        for first in range(0, len(self._first_sequence), CHECKED_WHOLE):
            edges = self._first_sequence[first : first + CHECKED_WHOLE + 1]
            _refuse_first(np.diff(edges) < 0, first, path, "document {} ends before it begins")

    # ---- helpers

    def _check_against(self, size: int, idx_path: Path, bin_path: Path) -> None:
        sequences, width = len(self.lengths), self.dtype.itemsize
        expected = 0
        if sequences:
            expected = int(self._pointers[-1]) + int(self.lengths[-1]) * width
            if self._pointers[0] != 0:
                raise UserError(f"{idx_path} is damaged: its first sequence does not begin at byte 0")
        if size != expected:
            state = "cut short" if size < expected else "longer than that"
            raise UserError(f"{bin_path} has {size} bytes where {idx_path} says {expected}: it is {state}")
        if self._first_sequence[0] != 0 or self._first_sequence[-1] != sequences:
            raise UserError(f"{idx_path} is damaged: its documents do not cover its {sequences} sequences")
        if max(sequences, len(self._first_sequence)) <= CHECKED_WHOLE:
            self.check_all()

    def _start_byte(self, sequence: int) -> int:
        if sequence < len(self._pointers):
            return int(self._pointers[sequence])
        return self._bin_bytes

    def _start_of_sequence(self, sequence: int) -> int:
        return self._start_byte(sequence) // self.dtype.itemsize

    def _sequence_starts(self) -> npt.NDArray[np.int64]:
        """``[sequences + 1]`` in tokens."""
        return np.append(self._pointers // self.dtype.itemsize, self._start_of_sequence(len(self._pointers)))


def corpus_prefix(path: str | Path) -> Path:
    """P, whether P, P.bin or P.idx was given."""
    return Path(corpus_name(path))


def corpus_name(path: str | Path) -> str:
    """The same as text, which may be a URL."""
    text = str(path)
    return text[:-4] if text.endswith((".bin", ".idx")) else text


def dtype_for(vocabulary_size: int) -> np.dtype[Any]:
    """Megatron's rule: u16 for vocabularies below 65,500, else i32."""
    return np.dtype(np.uint16) if vocabulary_size < 65500 else np.dtype(np.int32)


def dtype_code(dtype: npt.DTypeLike) -> int:
    """The .idx's byte for a type of tokens."""
    return next(code for code, known in DTYPES.items() if np.dtype(known) == np.dtype(dtype))


def _map_index(path: Path) -> tuple[tuple[Any, Any, Any], np.dtype[Any]]:
    """``(lengths, pointers, first sequences)`` mapped from an .idx, and the type of the tokens."""
    size = path.stat().st_size
    if size < HEADER.size:
        raise UserError(
            f"{path} is not an index of a corpus: it has {size} bytes, a header has {HEADER.size}"
        )
    with path.open("rb") as file:
        magic, version, code, sequences, edges = HEADER.unpack(file.read(HEADER.size))
        if magic != MAGIC:
            raise UserError(f"{path} is not an index of a corpus: it does not begin with MMIDIDX")
        if version != 1:
            raise UserError(f"{path} is written in version {version} of the format; this reads version 1")
        if code not in DTYPES:
            raise UserError(f"{path}: its tokens have type {code}; a corpus has one of {sorted(DTYPES)}")
        expected = HEADER.size + 12 * sequences + 8 * edges
        if edges < 1 or size not in (expected, expected + sequences):
            raise UserError(
                f"{path} is damaged: {sequences} sequences and {edges - 1} documents take {expected} bytes, "
                f"it has {size}"
            )
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    at = HEADER.size
    lengths = np.frombuffer(mapped, "<i4", sequences, at)
    pointers = np.frombuffer(mapped, "<i8", sequences, at + 4 * sequences)
    first_sequence = np.frombuffer(mapped, "<i8", edges, at + 12 * sequences)
    return (lengths, pointers, first_sequence), np.dtype(DTYPES[code])


def _holders(edges: npt.NDArray[np.int64], places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each of the sorted ``places`` the last entry of ``edges`` at or before it.

    Of entries that begin at one place all but the last are empty, so it is the
    holder. Bisects by hand, because numpy would copy an unaligned array whole.
    """
    low = bisect_right(edges, int(places[0])) - 1
    high = bisect_right(edges, int(places[-1]), lo=low) - 1
    return low + np.searchsorted(edges[low : high + 1], places, side="right").astype(np.int64) - 1


def _refuse_first(wrong: npt.NDArray[np.bool_], first: int, path: str, message: str) -> None:
    if wrong.any():
        raise UserError(f"{path} is damaged: {message.format(first + int(np.argmax(wrong)))}")
