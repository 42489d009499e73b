"""Brings a run back from its copy in an object store: onto a fresh host, or where the disk has an older state."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from megarc.atomic_write import cannot_write, written_atomically
from megarc.errors import UserError
from megarc.object_upload import get_bytes, get_file, names_below
from megarc.train.checkpoint import layout
from megarc.train.checkpoint.store_copy import SMALL
from megarc.train.checkpoint.store_layout import StoredCheckpoints, step_of
from megarc.train.folder import RunFolder

log = logging.getLogger("megarc")


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of it.

    Attributes:
        brought: the checkpoint that was copied to the disk, and from where; None: none was newer.
        damaged: of those that were passed over, by name, what is wrong. ``StoreCopy`` replaces them.
        away: why the store could not be read, or the disk not written.
    """

    brought: str | None = None
    damaged: dict[str, str] = field(default_factory=dict)
    away: str | None = None

    def say(self) -> None:
        """Once the run's log is there."""
        for name, problem in self.damaged.items():
            log.warning("checkpoint.store: the copy of %s is not used: %s", name, problem)
        if self.away is not None:
            log.warning("checkpoint.store: %s; the run resumes from its own disk", self.away)
        if self.brought is not None:
            log.info("%s", self.brought)


def restore(url: str, folder: RunFolder) -> Restored:
    """Copies what the store has and the run folder lacks: small files, and the newest checkpoint if it is newer.

    A checkpoint whose files do not have their digests, or are not all there, is passed over for the one before it; one
    that cannot be read now, or does not fit on the disk, is not. Rank 0 only.

    Raises:
        UserError: where the store holds another run; where the folder holds no checkpoint yet, and the store cannot be
            read or the disk not written, or all that it holds are damaged.
    """
    try:
        return _restore(StoredCheckpoints(url.rstrip("/")), folder)
    except UserError as error:
        if isinstance(error, _AnotherRun) or not layout.finished(folder.checkpoints):
            raise UserError(f"checkpoint.store: {error}") from None
        return Restored(away=str(error))


class _AnotherRun(UserError):
    """The store is some other run's."""


def _restore(stored: StoredCheckpoints, folder: RunFolder) -> Restored:
    there = get_bytes(f"{stored.url}/environment.json")
    if there is None:
        return Restored()
    try:
        run = str(orjson.loads(there)["run"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise UserError(f"{stored.url}/environment.json is not that of a run") from None
    if folder.run not in ("", run):
        raise _AnotherRun(f"{stored.url} holds another run than {folder.path}; give each run its own URL")
    _bring_small(stored, folder)
    damaged: dict[str, str] = {}
    newest = _bring_newest(stored, folder, damaged)
    if damaged and newest is None and not layout.finished(folder.checkpoints):
        problems = "; ".join(f"{name}: {problem}" for name, problem in damaged.items())
        raise UserError(
            f"every checkpoint in {stored.url} is damaged ({problems}); to start anew, name another checkpoint.store"
        )
    return Restored(newest and f"{newest} was brought from {stored.url}", damaged)


def _bring_small(stored: StoredCheckpoints, folder: RunFolder) -> None:
    """Files that are not there; of lines also where the store has more. The run's name comes first."""
    names = names_below(f"{stored.url}/tokenizer")
    listed = [f"tokenizer/{name}" for name in names if name == Path(name).name]  # none that leads elsewhere
    for name in (*SMALL, *listed):
        path = folder.path / name
        if path.exists() and not name.endswith(".jsonl"):
            continue
        content = get_bytes(f"{stored.url}/{name}")
        if content is None or (path.exists() and path.stat().st_size >= len(content)):
            continue
        with written_atomically(path) as file:
            file.write(content)


def _bring_newest(stored: StoredCheckpoints, folder: RunFolder, damaged: dict[str, str]) -> str | None:
    """The checkpoint that was brought; None where the disk has one as new."""
    own = layout.finished(folder.checkpoints)
    newest = layout.step_of(own[-1]) if own else -1
    for name in reversed(stored.whole()):
        if step_of(name) <= newest:
            return None
        problem = _bring(stored, name, folder.checkpoints / name)
        if problem is None:
            return name
        damaged[name] = problem
    return None


def _bring(stored: StoredCheckpoints, name: str, target: Path) -> str | None:
    """Copies one checkpoint, its manifest last; what is wrong with it, or None.

    Raises:
        UserError: where the store cannot be read, or the disk not written: this says nothing of the checkpoint.
    """
    content = stored.manifest(name) or b""
    beside = target.with_name(f"{name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        (beside / layout.MANIFEST).write_bytes(content)
        problem = _fetch(stored, name, beside)
        if problem is not None:
            return problem
        (beside / layout.MANIFEST).unlink()
        shutil.rmtree(target, ignore_errors=True)  # an unfinished save
        beside.rename(target)
        with written_atomically(target / layout.MANIFEST) as file:
            file.write(content)
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return None


def _fetch(stored: StoredCheckpoints, name: str, beside: Path) -> str | None:
    """Copies the files that the manifest in ``beside`` names; what is wrong with them, or None."""
    try:
        files = layout.read_manifest(beside)["files"]
    except UserError as error:
        return str(error).replace(str(beside), stored.place(name))
    there = stored.listed().get(name, [])
    for file, facts in files.items():
        if file not in there:
            return f"{file} is not in the store"
        get_file(f"{stored.place(name)}/{file}", beside / file)
        if layout.digest_of(beside / file) != facts["sha256"]:
            return f"{file} is damaged: its digest differs from the manifest's"
    return None
