"""``P.parts/``: where the work of a packing job lies until the corpus is whole.

P.parts/part-00003-of-00008.shard     a whole part
P.parts/part-00003-of-00008/          the work on it: plan.json, lock, the shards of each whole piece
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import orjson

from megarc.atomic_write import cannot_write, written_atomically
from megarc.corpus.inputs.find_files import Input
from megarc.corpus.packing.shard import Plan, Shard
from megarc.errors import UserError

_PATIENCE = 5.0  # seconds that the workers of a killed packer may take to be gone


class WorkFolder:
    """The work on part ``index`` of ``parts``, locked while it is open.

    Whole pieces of the same plan and unchanged inputs are kept, anything else is removed.

    Raises:
        UserError: where another packer is at work on it, or it cannot be written.
    """

    def __init__(self, prefix: Path, index: int, parts: int, plan: Plan, inputs: Sequence[Input]) -> None:
        name = f"part-{index:05d}-of-{parts:05d}"
        self.shards = parts_folder(prefix) / name
        self.part_path = parts_folder(prefix) / f"{name}.shard"
        self.plan = plan
        state = [plan.digest, [[file.name, file.bytes, file.modified] for file in inputs]]
        self.state = hashlib.sha256(orjson.dumps(state)).hexdigest()
        self._lock: BinaryIO | None = None

    def __enter__(self) -> WorkFolder:
        try:
            self.shards.mkdir(parents=True, exist_ok=True)
            self._lock = locked(self.shards / "lock")
            self._keep_only_this_plan()
        except OSError as error:
            raise cannot_write(self.shards, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock:
            self._lock.close()

    def part_is_whole(self) -> bool:
        """Whether this part was finished before, of the same plan."""
        if not self.part_path.exists():
            return False
        try:
            return Shard(self.part_path).facts.plan == self.plan.digest
        except UserError:
            return False

    def remove(self) -> None:
        """The work is done: nothing of it remains but the part, if there is one."""
        shutil.rmtree(self.shards, ignore_errors=True)
        if not any(self.shards.parent.iterdir()):
            self.shards.parent.rmdir()

    @staticmethod
    def all_parts_whole(prefix: Path, parts: int) -> bool:
        folder = parts_folder(prefix)
        return all((folder / f"part-{i:05d}-of-{parts:05d}.shard").exists() for i in range(parts))

    def clear(self) -> None:
        """Removes all work."""
        for path in self.shards.iterdir():
            if path.name != "lock":
                path.unlink()

    def _keep_only_this_plan(self) -> None:
        mark = self.shards / "plan.json"
        if mark.exists() and mark.read_text() == self.state:
            return
        self.clear()
        with written_atomically(mark) as file:
            file.write(self.state.encode())


def parts_folder(prefix: Path) -> Path:
    return Path(f"{prefix}.parts")


def locked(path: Path, patience: float | None = None) -> BinaryIO:
    """The file ``path``, locked until it is closed or its process has died.

    Args:
        patience: seconds to wait for it; None: as long as a killed packer's workers may last.

    Raises:
        UserError: where another process holds it.
    """
    file = path.open("ab")
    end = time.monotonic() + (_PATIENCE if patience is None else patience)
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < end:
                time.sleep(0.1)
                continue
            file.close()
            raise UserError(
                f"another packer is at work in {path.parent}; wait for it, or choose another --output-prefix"
            ) from None
        os.set_inheritable(file.fileno(), False)
        return file
