"""The text: Python's own library, found where this Python has it, split by file."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from scripts import run

from megarc.errors import UserError

VOCABULARY = 2048
_LEFT_OUT = {
    *("test", "tests", "idlelib", "turtledemo", "lib2to3", "ensurepip", "site-packages", "dist-packages"),
    *("encodings", "pydoc_data", "__pycache__"),  # tables, generated
}
_HELD_OUT_OF_TEN = 1


def prepare(folder: Path) -> None:
    """Makes tokenizer, training and held-out corpus under ``folder``, where they are not there yet."""
    lists = {name: folder / f"{name}.list" for name in ("train", "heldout")}
    if not all((folder / f"{name}.json").exists() for name in lists):
        folder.mkdir(parents=True, exist_ok=True)
        for name, files in _split(_sources()).items():
            lists[name].write_text("".join(f"{file}\n" for file in files), encoding="utf-8")
    tokenizer = folder / "tokenizer"
    if not tokenizer.with_suffix(".model").exists():
        run("data_tools/train_tokenizer.py", "--input", f"@{lists['train']}", "--output-prefix", tokenizer,
             "--vocab-size", VOCABULARY)  # fmt: skip
    for name, files in lists.items():
        if not (folder / f"{name}.json").exists():
            run("data_tools/preprocess.py", "--input", f"@{files}", "--output-prefix", folder / name,
                 "--tokenizer-model", f"{tokenizer}.model", "--workers", 2, "--append-eod")  # fmt: skip


def _sources() -> list[Path]:
    library = Path(sysconfig.get_path("stdlib"))
    found = sorted(
        path for path in library.rglob("*.py") if not _LEFT_OUT & set(path.relative_to(library).parts)
    )
    if not found:
        raise UserError(f"this Python has no sources of its library under {library}; use another Python")
    return found


def _split(files: Sequence[Path]) -> dict[str, list[Path]]:
    """By a hash of the file's name, so that the same file is held out on every machine."""
    parts: dict[str, list[Path]] = {"train": [], "heldout": []}
    for file in files:
        held_out = hashlib.sha256(file.name.encode()).digest()[0] % 10 < _HELD_OUT_OF_TEN
        parts["heldout" if held_out else "train"].append(file)
    return parts
