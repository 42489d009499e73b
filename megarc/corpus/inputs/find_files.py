"""Which files are read, and how.

A known name (``.jsonl``, ``.txt.gz``, ``.parquet``, ...) tells how; where the name
says nothing the file's first bytes do, and a file that they do not explain is an error.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

import orjson

from megarc.corpus.inputs.detect_format import compression_of, format_of, holds_samples
from megarc.errors import UserError
from megarc.object_store import StoredFile, find_stored, is_stored

FORMATS = ("jsonl", "json", "text", "parquet", "arrow", "tar")
COMPRESSIONS = {".gz": "gz", ".zst": "zst", ".zstd": "zst", ".xz": "xz", ".bz2": "bz2"}
_BY_SUFFIX = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet"}
_BY_SUFFIX |= {".arrow": "arrow", ".tar": "tar"}
_TEXT_SUFFIXES = frozenset(
    """
    .txt .text .md .rst .tex .html .xml .csv .py .pyi .ipynb .c .h .cc .cpp .cxx .hpp .cu .cuh .java .kt .scala
    .js .mjs .ts .jsx .tsx .go .rs .rb .php .pl .pm .lua .sh .bash .r .m .f .f90 .f95 .hs .ml .mli
    .lean .v .smt2 .agda .thy .lisp .el .scm .clj .erl .ex .swift .cs .fs .vb .sql .s .asm .tcl .toml .yaml
    .yml .ini .cfg .cmake .mk .proto .graphql .css .scss .dart .zig .nim .d .pas .ada .adb .sv .vhd
    """.split()  # noqa: SIM905
)

_BY_CONTENT = frozenset((".jl",))  # Julia, or JSON lines
_HUB_FILES = frozenset(("dataset_info.json", "dataset_infos.json", "dataset_dict.json"))


@dataclass(frozen=True, slots=True)
class Input:
    """A file of this machine or of an object store; ``path`` may differ from ``name`` (standard input)."""

    path: Path | StoredFile
    name: str
    format: str
    compression: str
    bytes: int  # as stored
    modified: int  # ns; a changed file makes earlier work on it void

    @property
    def sized(self) -> bool:
        """Whether ``bytes`` is known: not of standard input, nor of a pipe."""
        return self.name != "-" and (self.bytes > 0 or self.path.is_file())


def find_inputs(
    named: Iterable[str], exclude: Sequence[str] = (), format: str | None = None
) -> tuple[list[Input], Counter[str]]:
    """The files that ``named`` stands for, in order, and what was passed over, counted by reason.

    Each name is a file, a folder (all of its files of known kinds, sorted), a glob, a URL
    of an object store that stands for one of these (``s3://bucket/*.jsonl``), ``@LIST``
    (a file of names, one a line) or ``-`` (standard input).

    Args:
        exclude: patterns; a file is passed over whose path fits one, or whose name
            or a folder of it does, below the folder that was named.
        format: how to read every file, whatever its name says.

    Raises:
        UserError: where a name stands for nothing, or nothing remains.
    """
    found: dict[str, Input] = {}
    passed: Counter[str] = Counter()
    for path, below in _paths(named, passed):
        name = _place(path)
        if name in found:
            passed["named twice" if found[name].name == str(path) else "reached twice"] += 1
        elif _fits(path, below, exclude):
            passed["excluded"] += 1
        elif below and format is None and _is_card(path):
            passed["dataset cards"] += 1
        elif below and format is None and _is_leftover(path):
            passed["arrow files that their dataset does not list"] += 1
        elif below and format is None and not _taken_below(path):
            passed[f"of kind {path.suffix or path.name}"] += 1
        else:
            found[name] = _input(path, format)
    passed = +passed  # without zeros
    if not found:
        raise UserError(f"there is nothing to read (skipped: {in_words(passed) or 'nothing'})")
    return list(found.values()), passed


def in_words(passed: Counter[str]) -> str:
    """What was passed over, in one line."""
    counts = [f"{count} {reason}" for reason, count in passed.most_common()]
    return ", ".join(counts[:8]) + (f", {len(counts) - 8} more kinds" if len(counts) > 8 else "")


def _place(path: Path | StoredFile) -> str:
    """One name for a file, however it was reached: ``**`` follows links, a loop of them forty times."""
    if isinstance(path, StoredFile):
        return path.url
    return str(path) if str(path) == "-" else os.path.join(_real(path.parent), path.name)  # noqa: PTH118


@lru_cache(maxsize=1024)
def _real(folder: Path) -> str:
    return os.path.realpath(folder)


def _paths(named: Iterable[str], passed: Counter[str]) -> Iterator[tuple[Path | StoredFile, PurePath | None]]:
    """Each path; and, where it was found in a folder, its place below that. What is left out is counted."""
    for name in named:
        path = Path(name)
        if is_stored(name):
            yield from _stored(name, passed)
        elif name == "-" or path.is_file():
            yield path, None
        elif name.startswith("@"):
            yield from _paths(_names_in(Path(name[1:])), passed)
        elif path.is_dir():
            _refuse_splits(path)
            yield from ((file, file.relative_to(path)) for file in _files_below(path, passed))
        elif glob.has_magic(name):
            matches = [Path(match) for match in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207  (** fits files)
            if not matches:
                raise UserError(f"no file fits {name}")
            if "**" not in name:  # which fits what lies in the folders, too
                passed["folders that a pattern fits"] += sum(match.is_dir() for match in matches)
            files = [match for match in matches if match.is_file()]
            # as for a folder, what a hub puts beside the data is none
            everything = Path(name).name in ("*", "**")
            cards = [match for match in files if _is_card(match)] if everything else []
            passed["dataset cards"] += len(cards)
            yield from ((match, None) for match in files if match not in cards)
        elif path.exists():  # a pipe, a device
            yield path, None
        else:
            raise UserError(f"no such file: {name}")


def _stored(url: str, passed: Counter[str]) -> Iterator[tuple[StoredFile, PurePath | None]]:
    """The objects that a URL stands for; below a folder hidden ones are left out, as on a disk."""
    files, folder = find_stored(url)
    for file in files:
        below = None if folder is None else file.relative_to(folder)
        if below is not None and any(part.startswith(".") for part in below.parts):
            passed["hidden"] += 1
        else:
            yield file, below


def _files_below(folder: Path, passed: Counter[str]) -> list[Path]:
    """All files in a folder and in those below it, links to folders followed, each folder once."""
    files: list[Path] = []
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            passed["folders linked twice"] += 1
            folders.clear()
            continue
        seen.add(real)
        hidden = [name for name in (*folders, *names) if name.startswith(".")]
        passed["hidden"] += len(hidden)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = [Path(root, name) for name in names if not name.startswith(".")]
        files += [path for path in paths if path.is_file()]
        passed["broken links"] += sum(path.is_symlink() and not path.exists() for path in paths)
    return sorted(files)


def _names_in(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list of inputs {path}: {error}") from None


def _fits(path: Path | StoredFile, below: PurePath | None, patterns: Sequence[str]) -> bool:
    parts = below.parts if below else (path.name,)
    return any(fnmatch(text, pattern) for pattern in patterns for text in (str(path), *parts))


def _kind(path: Path | StoredFile) -> tuple[str | None, str]:
    """``(format, compression)`` by name; the format None where the name doesn't tell."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    compression = COMPRESSIONS.get(suffixes[-1], "") if suffixes else ""
    suffix = (suffixes[-2:-1] if compression else suffixes[-1:]) or [""]
    return _BY_SUFFIX.get(suffix[0]) or ("text" if suffix[0] in _TEXT_SUFFIXES else None), compression


def _taken_below(path: Path | StoredFile) -> bool:
    """Whether a file that was found in a folder is read: one of a known name, or without a suffix but of data.

    Where others (``x.jsonl.bak``) are meant, they are named.
    """
    kind, compression = _kind(path)
    if kind is None and path.suffix.lower() in _BY_CONTENT:
        return format_of(path, compression) is not None
    if kind is None and not path.suffix:
        return format_of(path, compression_of(path)) in ("jsonl", "parquet")
    if kind == "tar":  # a source archive among a project's files is none
        return compression == "zst" or holds_samples(path)
    return kind is not None


def _is_card(path: Path | StoredFile) -> bool:
    """What a hub puts beside the data of a folder: a README that begins with keys, files that describe it."""
    if path.name in _HUB_FILES:
        return True
    if path.name == "state.json" and isinstance(path, Path):
        return (path.parent / "dataset_info.json").exists()
    if path.name.lower() != "readme.md":
        return False
    with path.open("rb") as file:
        return file.read(4) in (b"---\n", b"---\r")


def _refuse_splits(folder: Path) -> None:
    """
    Raises:
        UserError: for a folder of several splits, as datasets saves a DatasetDict: held-out text would be trained on.
    """
    splits = (_tree(folder / "dataset_dict.json") or {}).get("splits")
    if isinstance(splits, list) and len(splits) > 1:
        names = " or ".join(str(folder / str(split)) for split in splits)
        raise UserError(f"{folder} holds several splits of a dataset; name one of them: {names}")


def _is_leftover(path: Path | StoredFile) -> bool:
    """Whether an arrow file lies in a folder that datasets saved, and is none of that dataset: a cached step, say."""
    if path.suffix.lower() != ".arrow" or isinstance(path, StoredFile):
        return False
    listed = (_tree(path.parent / "state.json") or {}).get("_data_files")
    names = [file.get("filename") for file in listed if isinstance(file, dict)] if listed else []
    return bool(names) and path.name not in names


def _tree(path: Path) -> dict[str, Any] | None:
    try:
        tree = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return tree if isinstance(tree, dict) else None


def _input(path: Path | StoredFile, format: str | None) -> Input:
    """How a file is read.

    Raises:
        UserError: where neither its name nor its content tells.
    """
    if str(path) == "-":
        # Workers lose descriptor 0, so they read a copy of it.
        return Input(Path(f"/dev/fd/{os.dup(0)}"), "-", format or "jsonl", "", 0, os.getpid())
    kind, compression = _kind(path)
    try:
        status = path.found if isinstance(path, StoredFile) else path.stat()
        # A pipe can be read only once; a text file of a folder of millions is not opened for this.
        if path.is_file() and kind != "text":
            compression = compression or compression_of(path)
            if kind is None and format is None and status.st_size:
                kind = format_of(path, compression)
                if kind is None:
                    raise UserError(
                        f"{path} holds neither text nor JSON lines nor parquet, as far as its first bytes tell; say "
                        "how to read it with --format, or leave it out with --exclude"
                    )
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if isinstance(path, StoredFile) and "arrow" in (format, kind):
        raise UserError(
            f"{path}: arrow files are mapped from a disk; copy the folder first, or store it as parquet"
        )
    return Input(path, str(path), format or kind or "text", compression, status.st_size, status.st_mtime_ns)
