"""Names and JSON of a checkpoint folder.

    step-000001000/
      rank-00017.safetensors   this rank's fragments: name/master, name/exp_avg, name/exp_avg_sq, 1-D float32
      rank-00017.json          where each fragment lies in its full parameter
      manifest.json            last: every file's size and digest, where the run stands

A folder without a valid manifest does not exist.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from megarc.atomic_write import written_atomically
from megarc.errors import UserError
from megarc.parallel import Box

FORMAT = 2
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands: what a checkpoint knows beside tensors."""

    step: int  # steps taken
    samples: int  # samples consumed, in this phase
    phase: int = 0
    skipped: list[list[int]] = field(
        default_factory=list
    )  # ranges of the order's samples left out on purpose
    sources: list[str] = field(default_factory=list)  # digests of the corpora
    without_update: int = 0  # of the steps, those whose update was left out
    losses: dict[str, Any] = field(default_factory=dict)  # the running mean by which a loss is judged

    @property
    def updates(self) -> int:
        """What the optimizer counts."""
        return self.step - self.without_update


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
        """Of each parameter, the fragments of all ranks."""
        found: dict[str, list[Placed]] = {}
        for name in self.manifest["files"]:
            if not name.endswith(".json"):
                continue
            rank_file = orjson.loads((self.folder / name).read_bytes())
            for entry in rank_file["fragments"]:
                boxes = [Box(*box) for box in entry["boxes"]]
                placed = Placed(rank_file["tensors"], entry["shape"], boxes)
                found.setdefault(entry["name"], []).append(placed)
        return found

    def verify(self, part: int = 0, parts: int = 1) -> str | None:
        """Reads the ``part``-th of ``parts`` of the files against their digests; the damaged one, or None."""
        for name in sorted(self.manifest["files"])[part::parts]:
            if digest_of(self.folder / name) != self.manifest["files"][name]["sha256"]:
                return name
        return None


def step_folder(checkpoints: Path, step: int) -> Path:
    """``checkpoints/step-000001000``."""
    return checkpoints / f"step-{step:09d}"


def step_of(folder: Path) -> int:
    """1000 of ``step-000001000``."""
    return int(folder.name.removeprefix("step-"))


def rank_name(rank: int) -> str:
    """``rank-00017``: the stem of a rank's two files."""
    return f"rank-{rank:05d}"


def finished(checkpoints: Path) -> list[Path]:
    """The folders that were written to their end, oldest first; others do not exist for us."""
    return [folder for folder in sorted(checkpoints.glob("step-*")) if _manifest(folder) is not None]


def latest(checkpoints: Path, at_most: int | None = None) -> Checkpoint | None:
    """The newest finished checkpoint, of step ``at_most`` where that is given, if there is one.

    Raises:
        UserError: where a file of it is missing or cut: that is damage, not an unfinished save.
    """
    folders = [folder for folder in finished(checkpoints) if at_most is None or step_of(folder) <= at_most]
    return open_checkpoint(folders[-1]) if folders else None


def open_checkpoint(folder: Path) -> Checkpoint:
    """Opens one folder.

    Raises:
        UserError: where it is not whole, or from a newer version.
    """
    manifest = _manifest(folder)
    if manifest is None:
        raise UserError(f"{folder} is no finished checkpoint: it has no {MANIFEST}, or half of one")
    if manifest.get("format", 0) > FORMAT:
        raise UserError(
            f"{folder} has format {manifest['format']}, this megarc reads up to {FORMAT}; use a newer megarc"
        )
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
    before = [other for other in finished(folder.parent) if other.name < folder.name]
    if not before:
        return "remove that folder to start anew: there is no checkpoint before it"
    return (
        f"move that folder away to go on from the checkpoint before it, {before[-1].name}:  "
        f"mv {folder} {folder.parent.parent}/damaged-{folder.name}"
    )


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = orjson.loads((folder / MANIFEST).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return manifest if isinstance(manifest, dict) and "files" in manifest else None


def write_manifest(folder: Path, ranks: Iterable[int], standing: Standing, facts: dict[str, Any]) -> None:
    """Makes the folder whole: every rank's JSON must be there."""
    files: dict[str, Any] = {}
    for rank in ranks:
        name = f"{rank_name(rank)}.json"
        entry = orjson.loads((folder / name).read_bytes())
        files[entry["tensors"]] = {"size": entry["size"], "sha256": entry["sha256"]}
        files[name] = {"size": (folder / name).stat().st_size, "sha256": digest_of(folder / name)}
    manifest = {"format": FORMAT, "standing": asdict(standing), "files": files, **facts}
    with written_atomically(folder / MANIFEST) as file:
        file.write(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))


def digest_of_text(text: str) -> str:
    """SHA-256 of a string."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()
