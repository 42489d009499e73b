"""A shard: packed documents on their way to a corpus, sorted, in one file that is there whole or not at all.

    tokens of all documents | a record for each document | facts as JSON | u64 length of the facts | magic

A worker writes shards, a part of a job is one big shard, and merging shards in
their order gives the corpus.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from megarc.atomic_write import written_atomically
from megarc.config import Config, build, key, to_dict
from megarc.corpus.indexed.manifest import PackSettings, TokenizerFacts
from megarc.errors import UserError

RECORD = np.dtype(
    [
        ("key", "<u8"),  # place in the packed order; ties by input, then offset
        ("offset", "<u8"),  # where the document begins in its input
        ("bytes", "<u8"),  # of its text
        ("hash", "<u8", 2),  # of its text; zero where nothing asks for it
        ("input", "<u4"),
        ("tokens", "<u4"),
        ("answer", "<u4"),  # tokens before its answer; 0 where it is not divided
    ]
)
_END = struct.Struct("<Q8s")
_MAGIC = b"MEGARC2\n"


class SpanFacts(Config):
    """What was found in a span of an input."""

    input: int
    start: int
    lines: int
    documents: int
    rejects: int
    shown: list[tuple[int, int, str]] = key([], "line (in the span), byte, reason; the first so many")
    leaves: list[str] = key([], "SHA-256 of each MiB of the stored file that begins in the span")


class Plan(Config):
    """What a job packs: the same for all of its workers and parts."""

    inputs: list[tuple[str, int]] = key(meaning="name and stored bytes of each input")
    pieces: int
    tokenizer: TokenizerFacts
    settings: PackSettings

    @property
    def digest(self) -> str:
        """Equal on machines that mount the inputs at different places."""
        tree = to_dict(self)
        tree["inputs"] = [[Path(name).name, size] for name, size in self.inputs]
        return hashlib.sha256(orjson.dumps(tree)).hexdigest()


class ShardFacts(Config):
    """The end of a shard's file."""

    plan: str = key(meaning="digest of the job's plan")
    dtype: str
    documents: int = key(ge=0)
    tokens: int = key(ge=0)
    digest: str = key(meaning="SHA-256 of tokens and records")
    pieces: list[int] = key(meaning="pieces that end in this shard")
    spans: list[SpanFacts]
    dropped: dict[str, int]
    part: tuple[int, int] | None = key(None, "i of n, where this is a part of a job")
    job: Plan | None = key(None, "the plan itself, in a part")


Batch = tuple[Any, Any]  # records [documents] in order, and all of their tokens, end to end


def write_shard(path: Path, batches: Iterable[Batch], dtype: Any, facts: dict[str, Any]) -> ShardFacts:
    """Writes sorted batches; ``facts`` gives the fields that they do not tell."""
    digest = hashlib.sha256()
    records: list[npt.NDArray[Any]] = [np.empty(0, RECORD)]
    count = 0
    with written_atomically(path) as file:
        for some, tokens in batches:
            data = memoryview(np.ascontiguousarray(tokens, dtype)).cast("B")
            file.write(data)
            digest.update(data)
            records.append(some)
            count += len(tokens)
        table = np.concatenate(records)
        file.write(table.tobytes())
        digest.update(table.tobytes())
        whole = ShardFacts(
            dtype=np.dtype(dtype).name,
            documents=len(table),
            tokens=count,
            digest=digest.hexdigest(),
            **facts,
        )
        footer = orjson.dumps(to_dict(whole))
        file.write(footer + _END.pack(len(footer), _MAGIC))
    return whole


class Shard:
    """A shard's file, read by ranges: nothing stays open or in memory.

    Raises:
        UserError: where the file is no whole shard.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _END.size, 0))
            end = file.read()
            length, magic = _END.unpack(end) if len(end) == _END.size else (0, b"")
            if magic != _MAGIC or length > size - _END.size:
                raise UserError(
                    f"{path} is truncated, or it is not a part of a packing job; remove it and pack again"
                )
            file.seek(size - _END.size - length)
            footer = file.read(length)
        try:
            tree = orjson.loads(footer)
        except orjson.JSONDecodeError:
            tree = None
        if not isinstance(tree, dict):
            raise UserError(f"{path} is damaged: its metadata is not JSON; remove it and pack again")
        self.facts = build(ShardFacts, tree, str(path))
        self.dtype = np.dtype(self.facts.dtype)
        self._records_at = self.facts.tokens * self.dtype.itemsize
        if self._records_at + self.facts.documents * RECORD.itemsize + length + _END.size != size:
            raise UserError(f"{path} is damaged: its size is not the recorded one; remove it and pack again")

    def records(self, first: int = 0, count: int = -1) -> npt.NDArray[Any]:
        """Some documents' records, ``[count]``."""
        last = self.facts.documents if count < 0 else min(first + count, self.facts.documents)
        at = self._records_at + first * RECORD.itemsize
        return np.fromfile(self.path, RECORD, max(last - first, 0), offset=at)

    def tokens(self, first: int, count: int) -> npt.NDArray[Any]:
        """Some tokens, ``[count]``."""
        return np.fromfile(self.path, self.dtype, count, offset=first * self.dtype.itemsize)

    def verify(self) -> None:
        """Reads everything.

        Raises:
            UserError: where it is not what was written.
        """
        digest = hashlib.sha256()
        left = self._records_at + self.facts.documents * RECORD.itemsize
        with self.path.open("rb") as file:
            while left and (data := file.read(min(left, 1 << 22))):
                digest.update(data)
                left -= len(data)
        if digest.hexdigest() != self.facts.digest:
            raise UserError(f"{self.path} is damaged: its digest is not that of its contents; pack it again")
