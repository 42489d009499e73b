"""Names and JSON of a checkpoint folder.

    step-000001000/
      rank-00017.safetensors   this rank's fragments: name/master, name/exp_avg, name/exp_avg_sq (but of Muon's),
                               name/average (where one is kept), 1-D float32
      rank-00017.json          where each fragment lies in its full parameter
      manifest.json            last: every file's size and digest, where the run stands

A rank that holds much writes two such pairs: the second is ``rank-1000017``.
The manifest takes its name in one rename, so a folder without one is an unfinished save and does not exist.
One whose manifest is there and cannot be read, or does not fit its checksum, is damaged: it is named, and nobody
removes it. A folder of another name (``step-000001000-good``) is a user's own and is left alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from megarc.atomic_write import written_atomically
from megarc.errors import UserError
from megarc.parallel import Box
from megarc.train.checkpoint.disk_blocks import read_blocks
from megarc.train.checkpoint.layout_check import manifest_problem, rank_file
from megarc.train.run_position import Standing

FORMAT = 3  # 2 had no checksum of the manifest
MANIFEST = "manifest.json"
_SECOND = 1_000_000  # what a rank's second file has above its first: more than there are ranks
_STEP = re.compile(r"step-([0-9]+)")
_FILES_AT_ONCE = 4  # digests are worked out outside Python's lock


@dataclass(frozen=True, slots=True)
class Placed:
    """A fragment on disk: its file, its parameter's full shape, and the boxes of it that it holds."""

    file: str
    shape: list[int]
    boxes: list[Box]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A whole checkpoint folder: its manifest read and its files' sizes right."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def standing(self) -> Standing:
        return Standing(**self.manifest["standing"])

    def fragments(self) -> dict[str, list[Placed]]:
        """Of each parameter, the fragments of all ranks.

        Raises:
            UserError: where a rank's JSON is damaged.
        """
        found: dict[str, list[Placed]] = {}
        sizes = {name: facts["size"] for name, facts in self.manifest["files"].items()}
        for name in self.manifest["files"]:
            if not name.endswith(".json"):
                continue
            try:
                told = rank_file((self.folder / name).read_bytes(), sizes)
            except (OSError, ValueError) as problem:
                raise UserError(
                    f"{self.folder / name} is damaged: {problem}; {instead_of(self.folder)}"
                ) from None
            for entry in told.fragments:
                found.setdefault(entry.name, []).append(Placed(told.tensors, entry.shape, entry.placed()))
        return found

    def share(self, number: int, count: int) -> list[str]:
        """The files that the ``number``-th of ``count`` readers verifies: where as many wrote, one writer's."""
        pairs = sorted({(rank_of(name), _stem(name)) for name in self.manifest["files"]})
        own = {stem for at, (_, stem) in enumerate(pairs) if at * count // len(pairs) == number}
        return [name for name in sorted(self.manifest["files"]) if _stem(name) in own]

    def verify(self, names: Iterable[str] | None = None) -> str | None:
        """Reads files, all where none are named, against their digests; the damaged one, or None.

        Raises:
            UserError: where the disk does not give one.
        """
        listed = sorted(self.manifest["files"] if names is None else names)
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            found = pool.map(self._digest, listed)
            return next(
                (name for name, digest in zip(listed, found, strict=True) if not self.fits(name, digest)),
                None,
            )

    def _digest(self, name: str) -> str:
        with self.reading(name):
            return digest_of(self.folder / name)

    @contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """An error of the disk in the block is one that names the file."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.folder / name} cannot be read: {error}; {instead_of(self.folder)}"
            ) from None

    def fits(self, name: str, digest: str) -> bool:
        """Whether it is the digest that the manifest has for a file."""
        return bool(self.manifest["files"][name]["sha256"] == digest)

    def check(self) -> Checkpoint:
        """Itself, once every file was read against its digest: for whoever reads it on one process.

        Raises:
            UserError: naming the damaged file.
        """
        if (damaged := self.verify()) is not None:
            raise self.damage(damaged)
        return self

    def damage(self, name: str) -> UserError:
        """The error that names a file whose digest differs."""
        return UserError(
            f"{self.folder / name} is damaged: its digest differs from the manifest's; "
            f"{instead_of(self.folder)}"
        )


def step_folder(checkpoints: Path, step: int) -> Path:
    """``checkpoints/step-000001000``."""
    return checkpoints / f"step-{step:09d}"


def step_of(folder: Path) -> int:
    """1000 of ``step-000001000``."""
    found = _STEP.fullmatch(folder.name)
    if found is None:
        raise ValueError(f"{folder} is not named as a checkpoint is")
    return int(found[1])


def rank_name(rank: int, part: int = 0) -> str:
    """``rank-00017``, or ``rank-1000017`` of its second part: the stem of a pair of files."""
    return f"rank-{part * _SECOND + rank:05d}"


def rank_of(name: str) -> int:
    """17 of ``rank-00017.json`` and of ``rank-1000017.safetensors``: the rank that has written the file."""
    return int(_stem(name).removeprefix("rank-")) % _SECOND


def _stem(name: str) -> str:
    return name.partition(".")[0]


def finished(checkpoints: Path) -> list[Path]:
    """The folders that were written to their end, damaged or not, oldest first; others do not exist for us."""
    named = [folder for folder in checkpoints.glob("step-*") if _STEP.fullmatch(folder.name)]
    return sorted((folder for folder in named if (folder / MANIFEST).exists()), key=step_of)


def undamaged(folders: Iterable[Path]) -> list[Path]:
    """Those of finished folders whose manifest can be read; their other files are not looked at."""
    return [folder for folder in folders if not isinstance(_manifest(folder), str)]


def readable(folders: Iterable[Path]) -> list[Path]:
    """Those of finished folders that this megarc can open: undamaged, and not of a newer one."""
    return [
        folder
        for folder in folders
        if not isinstance(found := _manifest(folder), str) and found["format"] <= FORMAT
    ]


def latest(checkpoints: Path, at_most: int | None = None) -> Checkpoint | None:
    """The newest finished checkpoint, of step ``at_most`` where that is given, if there is one.

    Raises:
        UserError: where its manifest, or a file of it, is damaged, missing or cut.
    """
    folders = [folder for folder in finished(checkpoints) if at_most is None or step_of(folder) <= at_most]
    return open_checkpoint(folders[-1]) if folders else None


def open_checkpoint(folder: Path) -> Checkpoint:
    """Opens one folder.

    Raises:
        UserError: where it is not whole, or from a newer version.
    """
    manifest = read_manifest(folder)
    for name, facts in manifest["files"].items():
        path = folder / name
        size = path.stat().st_size if path.exists() else None
        if size != facts["size"]:
            found = "is missing" if size is None else f"has {size}"
            raise UserError(
                f"{path} should have {facts['size']} bytes and {found}; bring it back, or {instead_of(folder)}"
            )
    return Checkpoint(folder, manifest)


def instead_of(folder: Path) -> str:
    """What a user can do without a checkpoint that is damaged, as the end of a sentence."""
    named = _STEP.fullmatch(folder.name)
    earlier = [other for other in finished(folder.parent) if named and step_of(other) < int(named[1])]
    move = f"mv {folder} {aside(folder)}"
    if before := undamaged(earlier):
        return f"move that folder away to resume from the checkpoint before it, {before[-1].name}:  {move}"
    return (
        f"bring it back from a copy. No whole checkpoint is before it: to start anew, move it away:  {move}"
    )


def aside(folder: Path) -> Path:
    """Where a damaged checkpoint is out of the way: a name that is no checkpoint's, and free."""
    name, number = f"damaged-{folder.name}", 1
    while folder.with_name(name).exists():
        number += 1
        name = f"damaged-{folder.name}-{number}"
    return folder.with_name(name)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished checkpoint.

    Raises:
        UserError: where there is none, it is damaged, or from a newer version.
    """
    if not (folder / MANIFEST).exists():
        raise UserError(f"{folder} is not a finished checkpoint: it has no {MANIFEST}")
    manifest = _manifest(folder)
    if isinstance(manifest, str):
        raise UserError(f"{folder / MANIFEST} is damaged: {manifest}; {instead_of(folder)}")
    if manifest["format"] > FORMAT:
        raise UserError(
            f"{folder} has format {manifest['format']}, this megarc reads up to {FORMAT}; use a newer megarc"
        )
    return manifest


def _manifest(folder: Path) -> dict[str, Any] | str:
    """A manifest, or what is wrong with it."""
    try:
        content = (folder / MANIFEST).read_bytes()
        manifest = orjson.loads(content)
    except (OSError, orjson.JSONDecodeError) as error:
        return f"it cannot be read ({error})"
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        return "it is not a manifest of a checkpoint"
    checksum = manifest.pop("checksum", None)
    if manifest["format"] > FORMAT:
        return manifest
    if checksum != (None if manifest["format"] == 2 and checksum is None else _checksum(manifest)):
        return "its checksum does not fit"
    return manifest_problem(content) or manifest


def write_manifest(folder: Path, ranks: Iterable[int], standing: Standing, facts: dict[str, Any]) -> None:
    """Makes the folder whole: every rank's JSON must be there."""
    files: dict[str, Any] = {}
    names = [f"{rank_name(rank)}.json" for rank in ranks]
    while names:
        entry = orjson.loads((folder / (name := names.pop(0))).read_bytes())
        names += entry.get("others", [])
        files[entry["tensors"]] = {"size": entry["size"], "sha256": entry["sha256"]}
        files[name] = {"size": (folder / name).stat().st_size, "sha256": digest_of(folder / name)}
    manifest = {"format": FORMAT, "standing": asdict(standing), "files": files, **facts}
    manifest["checksum"] = _checksum(manifest)
    with written_atomically(folder / MANIFEST) as file:
        file.write(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))


def _checksum(manifest: dict[str, Any]) -> str:
    """SHA-256 of all that the manifest says: no file's digest covers where the run stands, for instance."""
    return hashlib.sha256(orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS)).hexdigest()


def digest_of(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    for _, block in read_blocks(path):
        digest.update(memoryview(block.numpy()))
    return digest.hexdigest()
