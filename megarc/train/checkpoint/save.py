"""Saving: the step waits for a copy in memory; a thread of each rank writes it out."""

from __future__ import annotations

import os
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from megarc.errors import UserError
from megarc.parallel import Groups, broadcast_object, gather_objects
from megarc.safe import written_safely
from megarc.train.checkpoint import layout
from megarc.train.checkpoint.fragments import buffers, written
from megarc.train.engine import Engine

_SECONDS_FOR_SLOWEST_RANK = 1800.0


@dataclass
class _Writing:
    """One save under way: the thread, whether this rank's files are done, what went wrong."""

    folder: Path
    thread: threading.Thread = field(default_factory=threading.Thread)
    own_files_done: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None


class Saver:
    """Writes checkpoints of one run, one at a time, and keeps the newest few.

    ``save`` and ``wait`` are called by all ranks together.
    """

    def __init__(self, checkpoints: Path, groups: Groups, keep: int) -> None:
        self.checkpoints, self.groups, self.keep = checkpoints, groups, keep
        self._writing: _Writing | None = None
        self._copies: dict[str, Tensor] = {}

    def save(self, engine: Engine, standing: layout.Standing, facts: dict[str, Any]) -> None:
        """Copies the state and starts to write it to ``step-...``.

        Raises:
            UserError: where the save before this one failed.
        """
        self.wait()
        folder = self._fresh_folder(standing.step)
        fragments = written(engine)
        for name, tensor in buffers(fragments):
            self._copy(name, tensor)
        entries = [
            {
                "name": part.name,
                "shape": list(part.record.shape),
                "kind": part.record.kind,
                "boxes": [list(box) for box in part.boxes],
            }
            for part in fragments
        ]
        writing = _Writing(folder)
        writing.thread = threading.Thread(
            target=self._write, args=(writing, entries, standing, facts), name="checkpoint", daemon=True
        )
        self._writing = writing
        writing.thread.start()

    def wait(self) -> None:
        """Waits for the save under way, on all ranks.

        Raises:
            UserError: on every rank, where any of them could not write.
        """
        writing = self._writing
        if writing is None:
            return
        writing.own_files_done.wait()
        self._raise_together(writing)
        writing.thread.join()
        self._raise_together(writing)
        self._writing = None

    def _raise_together(self, writing: _Writing) -> None:
        error = writing.error
        if error is not None and not isinstance(error, OSError | SafetensorError | UserError):
            raise error  # a bug of ours
        errors = gather_objects(error and str(error), self.groups.world)
        failed = [f"rank {rank}: {text}" for rank, text in enumerate(errors) if text]
        if not failed:
            return
        self._writing = None
        last = layout.latest(self.checkpoints)
        rest = f"; {last.folder} is whole and stays" if last else "; there is no earlier checkpoint"
        raise UserError(f"checkpoint {writing.folder} could not be written ({'; '.join(failed)}){rest}")

    def _fresh_folder(self, step: int) -> Path:
        folder = layout.step_folder(self.checkpoints, step)
        error = None
        if self.groups.first:
            try:
                if folder.exists():
                    shutil.rmtree(folder)
                folder.mkdir(parents=True)
            except OSError as problem:
                error = str(problem)
        error = broadcast_object(error, self.groups.world)
        if error:
            raise UserError(f"the checkpoint folder {folder} cannot be made: {error}")
        return folder

    def _copy(self, name: str, tensor: Tensor) -> None:
        """Into a buffer that is kept from save to save; pinned where it comes from a GPU."""
        if name not in self._copies:
            self._copies[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        self._copies[name].copy_(tensor.detach())

    # ---- in the thread

    def _write(
        self,
        writing: _Writing,
        entries: list[dict[str, Any]],
        standing: layout.Standing,
        facts: dict[str, Any],
    ) -> None:
        try:
            self._write_own(writing.folder, entries)
        except Exception as error:
            writing.error = error
        writing.own_files_done.set()
        if writing.error is None and self.groups.first:
            try:
                self._publish(writing.folder, standing, facts)
            except Exception as error:
                writing.error = error

    def _write_own(self, folder: Path, entries: list[dict[str, Any]]) -> None:
        stem = layout.rank_name(self.groups.world.rank)
        tensors = folder / f"{stem}.safetensors"
        beside = folder / f"{stem}.safetensors.part"
        save_file(self._copies, beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(tensors)
        facts = {
            "tensors": tensors.name,
            "size": tensors.stat().st_size,
            "sha256": layout.digest_of(tensors),
            "fragments": entries,
        }
        with written_safely(folder / f"{stem}.json") as file:
            file.write(orjson.dumps(facts))

    def _publish(self, folder: Path, standing: layout.Standing, facts: dict[str, Any]) -> None:
        ranks = self.groups.world.size
        deadline = time.monotonic() + _SECONDS_FOR_SLOWEST_RANK
        missing = [folder / f"{layout.rank_name(rank)}.json" for rank in range(ranks)]
        while missing := [path for path in missing if not path.exists()]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {missing[0].name} after {_SECONDS_FOR_SLOWEST_RANK:.0f} s")
            time.sleep(0.02)
        layout.write_manifest(folder, ranks, standing, facts)
        for old in layout.finished(self.checkpoints)[: -self.keep]:
            # The manifest goes first: a folder that is half removed must not look finished.
            (old / layout.MANIFEST).unlink()
            shutil.rmtree(old)
