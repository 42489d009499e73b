"""Saving: the step waits for a copy in memory; a thread of each rank writes it out."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from megarc.errors import UserError, reported_once
from megarc.parallel import Groups, gather_objects
from megarc.train.checkpoint import layout
from megarc.train.checkpoint.fragments import Fragment, buffers, divided, written
from megarc.train.checkpoint.peers import Peers
from megarc.train.checkpoint.storage_level import Level, make_room
from megarc.train.checkpoint.tensor_file import FileImage
from megarc.train.checkpoint.write import State, Writing, write
from megarc.train.engine import Engine

_LARGE = 1 << 26  # bytes of a rank, from which on two files are faster than one: a thread digests each
_FILES = 2


class Saver:
    """Writes checkpoints of one run, one at a time.

    ``save``, ``wait``, ``finish`` and ``busy`` are called by all ranks together.

    Args:
        peers: copy the checkpoints of their level to other hosts.
    """

    def __init__(self, groups: Groups, *, background: bool = True, peers: Peers | None = None) -> None:
        self.groups, self.background, self.peers = groups, background, peers
        self._writing: Writing | None = None
        self._images: list[FileImage] = []

    def save(self, engine: Engine, standing: layout.Standing, facts: dict[str, Any], level: Level) -> None:
        """Copies the state and starts to write it to ``step-...`` of a level.

        Raises:
            UserError: where the save before this one failed; without a background, where this one does.
        """
        self.wait()
        folder = self._fresh_folder(level, standing.step)
        fragments = written(engine, level.members)
        state = State(self.groups.world.rank, self._copied(fragments), standing, facts)
        copied = self.peers is not None and level is self.peers.level
        # A copy that is older than what its host still has itself would be of no use.
        writing = Writing(folder, level, self.peers.sent if self.peers is not None and copied else ())
        writing.thread = threading.Thread(
            target=write, args=(writing, state, engine.heartbeat.pass_by), name="checkpoint", daemon=True
        )
        self._writing = writing
        writing.thread.start()
        if self.peers is not None and copied:
            self.peers.copy(writing)
        if not self.background:
            self.finish()

    @property
    def failed(self) -> bool:
        """Whether this rank knows that the save under way went wrong; the others may not know yet."""
        return self._writing is not None and self._writing.error is not None

    def busy(self) -> bool:
        """Whether any rank is still writing."""
        own = self._writing is not None and self._writing.thread.is_alive()
        return any(gather_objects(own, self.groups.world))

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

    def finish(self) -> None:
        """Waits for the save under way and for copies that are on their way to other hosts.

        Raises:
            UserError: as ``wait``.
        """
        self.wait()
        if self.peers is not None:
            self.peers.wait()

    def _raise_together(self, writing: Writing) -> None:
        error = writing.error
        if error is not None and not isinstance(error, OSError | SafetensorError | UserError):
            raise error  # a bug of ours
        errors = gather_objects(error and str(error), self.groups.world)
        failed = [f"rank {rank}: {text}" for rank, text in enumerate(errors) if text]
        if not failed:
            return
        self._writing = None
        writing.given_up.set()
        whole_after_all = (writing.folder / layout.MANIFEST).exists()  # what failed came after its end
        if writing.level.publisher(self.groups.world.rank) and not whole_after_all:
            # What it holds of a full disk is of no use to anybody.
            shutil.rmtree(writing.folder, ignore_errors=True)
        whole = layout.finished(writing.level.folder)
        rest = f"; {whole[-1]} is whole and stays" if whole else "; there is no earlier checkpoint"
        with reported_once(self.groups.first):
            raise UserError(f"checkpoint {writing.folder} could not be written ({'; '.join(failed)}){rest}")

    def _fresh_folder(self, level: Level, step: int) -> Path:
        folder = layout.step_folder(level.folder, step)
        error = None
        if level.publisher(self.groups.world.rank):
            try:
                make_room(folder)
                folder.mkdir()  # not its parents: where they have vanished, the run's folder has
            except FileNotFoundError:
                error = f"{level.folder} has vanished"
            except OSError as problem:
                error = str(problem)
        errors = [text for text in gather_objects(error, self.groups.world) if text]
        if errors:
            with reported_once(self.groups.first):
                raise UserError(f"the checkpoint folder {folder} cannot be made: {errors[0]}")
        return folder

    def _copied(self, fragments: list[Fragment]) -> list[tuple[FileImage, list[dict[str, Any]]]]:
        """The rank's files, in memory that is kept from save to save, and the JSON of their fragments."""
        size = sum(tensor.numel() * tensor.itemsize for _, tensor in buffers(fragments))
        parts = divided(fragments, _FILES if size >= _LARGE else 1)
        self._images += [FileImage() for _ in range(len(parts) - len(self._images))]
        files = []
        for image, part in zip(self._images, parts, strict=False):
            image.fill(dict(buffers(part)))
            files.append((image, [_entry(fragment) for fragment in part]))
        return files


def _entry(part: Fragment) -> dict[str, Any]:
    return {
        "name": part.name,
        "shape": list(part.record.shape),
        "kind": part.record.kind,
        "boxes": [list(box) for box in part.boxes],
    }
