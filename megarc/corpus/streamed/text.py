"""The tokens of a text that is being packed: the sections end to end, read as far as they are packed."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
import weakref
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from megarc.corpus.indexed.corpus import dtype_for
from megarc.corpus.packing.bad_lines import too_many
from megarc.corpus.packing.shard import Shard
from megarc.corpus.streamed.folder import SectionFolder
from megarc.corpus.streamed.packer import UNTOLD, dropped, hire, pack_section
from megarc.corpus.streamed.sections import Text
from megarc.errors import UserError

log = logging.getLogger("megarc")

_SHORTEST_WAIT, _LONGEST_WAIT = 0.02, 0.5  # seconds between looks at the folder
_SAID_AFTER = 10.0  # seconds of waiting
_TRIES = 3  # packers that may die before it is an error
_MAPPED = 512  # shards at once

Numbers: TypeAlias = npt.NDArray[np.int64]


class _Mapped(NamedTuple):
    tokens: npt.NDArray[Any]  # [tokens]
    begins: Numbers  # of its documents, within the shard


class StreamedText:
    """Sections 0, 1, ... of a text, whose tokens end to end are one long text.

    Another process packs ahead of what is read here; whoever asks for a section that is not packed yet waits for it.
    Processes that read the same text share the packed sections and the packer.

    Args:
        cache: holds a folder for each text.
        workers: processes that pack; 0: a section is packed here, when it is asked for.

    Attributes:
        text: the inputs and what becomes of them.
        ends: tokens up to the end of each section that is known here.

    Raises:
        UserError: also of ``require`` and ``read``: for bad input, a full disk, a packer that died.
    """

    def __init__(self, text: Text, cache: Path, workers: int) -> None:
        self.text, self.workers = text, workers
        self.folder = SectionFolder(cache / text.digest[:24]).in_use()
        self.dtype = dtype_for(text.tokenizer.vocabulary_size)
        self.ends: list[int] = []
        self.documents = 0
        self._shard_ends: list[int] = []
        self._paths: list[Path] = []
        self._lines = self._rejects = self._stored = 0
        self._sizes = [sum(span.stop - span.start for span in section) for section in text.sections]
        self._packer: subprocess.Popen[bytes] | None = None
        self._tries = 0
        self._lock = threading.RLock()
        self._mapped = lru_cache(_MAPPED)(self._map)
        if workers and not self.folder.is_whole(len(text.sections) - 1):
            self._hire()
        self.require(0)
        self.bytes_per_token = self._bytes_per_token()

    # ---- how far it is packed

    @property
    def whole(self) -> bool:
        """Whether every section is known here."""
        return len(self.ends) == len(self.text.sections)

    def require(self, section: int) -> None:
        """Waits until sections 0 .. ``section`` are packed."""
        with self._lock:
            while len(self.ends) <= section:
                self._take_in(self._waited_for(len(self.ends)))

    def require_all(self) -> None:
        """Waits until the whole text is packed."""
        self.require(len(self.text.sections) - 1)

    # ---- reading

    def read(self, starts: Sequence[int] | Numbers, length: int) -> npt.NDArray[Any]:
        """``length`` tokens from each of ``starts`` [B] on, of sections that are known here: [B, length]."""
        found = np.empty((len(starts), length), self.dtype)
        for row, start in enumerate(np.asarray(starts).tolist()):
            done = 0
            for number, first, count in self._parts(start, length):
                found[row, done : done + count] = self._mapped(number).tokens[first : first + count]
                done += count
        return found

    def segments(self, starts: Sequence[int] | Numbers, rows: int) -> npt.NDArray[np.int32]:
        """Which document each of ``rows`` tokens from each of ``starts`` [B] on is in, as a count: [B, rows]."""
        begins: npt.NDArray[np.int32] = np.zeros((len(starts), rows), dtype=np.int32)
        for row, start in enumerate(np.asarray(starts).tolist()):
            done = 0
            for number, first, count in self._parts(start, rows):
                documents = self._mapped(number).begins
                inside = documents[(documents >= first) & (documents < first + count)]
                begins[row, inside - first + done] = 1
                done += count
        begins[:, 0] = 0
        return np.cumsum(begins, axis=1, dtype=np.int32)

    def document_at(self, token: int) -> str:
        """The file of the document that ``token`` lies in, and where it begins there: a byte, a row or an element."""
        number, first, _ = self._parts(token, 1)[0]
        records = Shard(self._paths[number]).records()
        record = records[np.searchsorted(np.cumsum(records["tokens"]), first, side="right")]
        return f"{self.text.inputs[record['input']].name} at {record['offset']}"

    def _parts(self, start: int, length: int) -> list[tuple[int, int, int]]:
        """Where tokens ``start .. start + length - 1`` lie: shards, first tokens there, how many."""
        found = []
        number = bisect_right(self._shard_ends, start)
        while length:
            before = self._shard_ends[number - 1] if number else 0
            count = min(length, self._shard_ends[number] - start)
            if count:
                found.append((number, start - before, count))
            start, length, number = start + count, length - count, number + 1
        return found

    def _map(self, number: int) -> _Mapped:
        shard = Shard(self._paths[number])
        lengths = shard.records()["tokens"].astype(np.int64)
        filled = lengths[lengths > 0]
        tokens: npt.NDArray[Any] = np.memmap(shard.path, shard.dtype, mode="r", shape=(shard.facts.tokens,))
        return _Mapped(tokens, np.cumsum(filled) - filled)

    # ---- waiting

    def _waited_for(self, section: int) -> list[Shard]:
        pause, begun, said = _SHORTEST_WAIT, time.monotonic(), False
        while (shards := self.folder.shards(section)) is None:
            if self._packer is None and self.folder.dropped:  # by another run's packer
                raise UserError(f"{self.text.request.path}: {dropped(self.folder)}")
            if not self.workers:
                self._pack_here(section)
                continue
            self._see_to_packer()
            if not said and time.monotonic() - begun > _SAID_AFTER:
                said = True
                log.info(
                    "waits for section %d of %d of %s to be packed; more data.workers pack faster",
                    section, len(self.text.sections), self.text.request.path,
                )  # fmt: skip
            time.sleep(pause)
            pause = min(1.5 * pause, _LONGEST_WAIT)
        return shards

    def _see_to_packer(self) -> None:
        """Somebody packs, this process's packer or another's; or it is said why not."""
        if self._packer is not None:
            code = self._packer.poll()
            if code is None:
                return
            self._packer = None
            failure = self.folder.failure
            if failure is not None:
                raise UserError(f"{self.text.request.path}: {failure}")
            if code == UNTOLD:
                raise UserError(
                    f"{self.text.request.path}: packing cannot go on, and why cannot be written to {self.folder.path} "
                    "either (the packer's own message is above): is the disk of data.cache full? Free some space there "
                    "and run the same command again"
                )
            if self._tries >= _TRIES:
                raise UserError(
                    f"{self.text.request.path}: the process that packs ended {self._tries} times before its work was "
                    f"done, last with exit code {code} (out of memory?); use fewer data.workers, or remove "
                    f"{self.folder.path} if files in it were lost"
                )
        self._hire()

    def _hire(self) -> None:
        lock = self.folder.lock()
        if lock is None:
            return  # another process's packer is at work
        with lock:
            self.folder.forget_failure()
            self._packer = hire(self.text.request, self.folder.path, lock, self.workers)
        self._tries += 1
        weakref.finalize(self, _end, self._packer)

    def _pack_here(self, section: int) -> None:
        while (lock := self.folder.lock()) is None:
            time.sleep(_SHORTEST_WAIT)
        with lock:
            if not self.folder.is_whole(section):
                pack_section(self.text.job(self.folder.path), section)

    def close(self) -> None:
        """Ends this process's packer; what is packed stays."""
        if self._packer is not None:
            _end(self._packer)

    # ---- what is known of a section

    def _take_in(self, shards: Sequence[Shard]) -> None:
        section, end = len(self.ends), self.ends[-1] if self.ends else 0
        for shard in shards:
            self._refuse_other(section, shard)
        self._judge(section, shards)
        for shard in shards:
            end += shard.facts.tokens
            self.documents += shard.facts.documents
            self._paths.append(shard.path)
            self._shard_ends.append(end)
        self.ends.append(end)

    def _refuse_other(self, section: int, shard: Shard) -> None:
        """A shard tells what it was packed from: a file that a hand put there is another's."""
        facts = shard.facts
        if facts.plan != self.text.plan.digest or set(facts.pieces) - {section}:
            raise UserError(
                f"{shard.path} is no part of section {section} of {self.text.request.path}: it was packed from other "
                "files or with other settings; remove it, and it is packed again"
            )

    def _judge(self, section: int, shards: Sequence[Shard]) -> None:
        """Bad lines: more than the whole text may have end the run, as they end a packing job."""
        spans = list(chain.from_iterable(shard.facts.spans for shard in shards))
        bad = sum(span.rejects for span in spans)
        self._lines += sum(span.lines for span in spans)
        self._rejects += bad
        self._stored += self._sizes[section]
        if not bad:
            return
        first = next(span for span in spans if span.rejects)
        _, byte, reason = first.shown[0]
        where = f"{self.text.inputs[first.input].name}, at {byte}: {reason}"
        lines = self._lines * sum(self._sizes) / max(self._stored, 1)  # of the whole text, as far as is known
        if self._rejects > self.text.request.max_bad * lines:
            raise too_many(
                self._rejects,
                self._lines,
                self.text.request.max_bad,
                f"of section {section} the first is {where}",
            )
        log.info("%d bad lines left out, the first: %s", bad, where)

    def _bytes_per_token(self) -> float | None:
        """Of the first section, so that every start says the same."""
        if not self.ends[0]:
            return None
        inside = [
            path for path, end in zip(self._paths, self._shard_ends, strict=True) if end <= self.ends[0]
        ]
        return sum(int(Shard(path).records()["bytes"].sum()) for path in inside) / self.ends[0]


def _end(packer: subprocess.Popen[bytes]) -> None:
    if packer.poll() is None:
        packer.terminate()
        packer.wait()
