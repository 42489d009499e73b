"""Which files are read, and how: by their names, ``.jsonl``, ``.txt.gz``, ``.parquet``, ..."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from megarc.errors import UserError

FORMATS = ("jsonl", "json", "text", "parquet")
COMPRESSIONS = {".gz": "gz", ".zst": "zst", ".xz": "xz", ".bz2": "bz2"}
_BY_SUFFIX = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet"}
_TEXT_SUFFIXES = frozenset(
    """
    .txt .md .rst .tex .html .xml .csv .py .pyi .ipynb .c .h .cc .cpp .cxx .hpp .cu .cuh .java .kt .scala
    .js .mjs .ts .jsx .tsx .go .rs .rb .php .pl .pm .lua .sh .bash .r .R .jl .m .f .f90 .f95 .hs .ml .mli
    .lean .v .agda .thy .lisp .el .scm .clj .erl .ex .swift .cs .fs .vb .sql .s .S .asm .tcl .toml .yaml
    .yml .ini .cfg .cmake .mk .proto .graphql .css .scss .dart .zig .nim .d .pas .ada .adb .sv .vhd
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Input:
    """A file to read. ``path`` may differ from ``name`` (standard input); ``bytes`` as stored."""

    path: Path
    name: str
    format: str
    compression: str
    bytes: int
    modified: int  # ns; a changed file makes earlier work on it void

    @property
    def sized(self) -> bool:
        """Whether ``bytes`` is known: not of standard input, nor of a pipe."""
        return self.name != "-" and (self.bytes > 0 or self.path.is_file())


def find_inputs(
    named: Iterable[str], exclude: Sequence[str] = (), format: str | None = None
) -> tuple[list[Input], Counter[str]]:
    """The files that ``named`` stands for, in order, and what was passed over, counted by reason.

    Each name is a file, a folder (all of its files of known kinds, sorted), a glob,
    ``@LIST`` (a file of names, one a line) or ``-`` (standard input).

    Args:
        exclude: patterns; a file is passed over whose path fits one, or whose name
            or a folder of it does, below the folder that was named.
        format: how to read every file, whatever its name says.

    Raises:
        UserError: where a name stands for nothing, or nothing remains.
    """
    found: dict[str, Input] = {}
    passed: Counter[str] = Counter()
    for path, below in _paths(named):
        name = str(path)
        if name in found:
            passed["named twice"] += 1
        elif _fits(path, below, exclude):
            passed["excluded"] += 1
        elif below and format is None and _kind(path)[0] is None:
            passed[f"of kind {path.suffix or path.name}"] += 1
        else:
            found[name] = _input(path, format)
    if not found:
        raise UserError(f"there is nothing to read (passed over: {told(passed) or 'nothing'})")
    return list(found.values()), passed


def told(passed: Counter[str]) -> str:
    """What was passed over, in one line."""
    counts = [f"{count} {reason}" for reason, count in passed.most_common()]
    return ", ".join(counts[:8]) + (f", {len(counts) - 8} more kinds" if len(counts) > 8 else "")


def _paths(named: Iterable[str]) -> Iterator[tuple[Path, Path | None]]:
    """Each path; and, where it was found in a folder, its place below that."""
    for name in named:
        path = Path(name)
        if name == "-" or path.is_file():
            yield path, None
        elif name.startswith("@"):
            yield from _paths(_names_in(Path(name[1:])))
        elif path.is_dir():
            for file in sorted(path.rglob("*")):
                below = file.relative_to(path)
                if file.is_file() and not any(part.startswith(".") for part in below.parts):
                    yield file, below
        elif glob.has_magic(name):
            matches = sorted(Path(path.anchor).glob(name.removeprefix(path.anchor)))
            if not matches:
                raise UserError(f"no file fits {name}")
            yield from ((match, None) for match in matches if match.is_file())
        elif path.exists():  # a pipe, a device
            yield path, None
        else:
            raise UserError(f"no such file: {name}")


def _names_in(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list of inputs {path}: {error}") from None


def _fits(path: Path, below: Path | None, patterns: Sequence[str]) -> bool:
    parts = below.parts if below else (path.name,)
    return any(fnmatch(text, pattern) for pattern in patterns for text in (str(path), *parts))


def _kind(path: Path) -> tuple[str | None, str]:
    """``(format, compression)`` by name; the format None where the name doesn't tell."""
    compression = COMPRESSIONS.get(path.suffix, "")
    suffix = path.with_suffix("").suffix if compression else path.suffix
    format = _BY_SUFFIX.get(suffix.lower())
    return format or ("text" if suffix in _TEXT_SUFFIXES else None), compression


def _input(path: Path, format: str | None) -> Input:
    if str(path) == "-":
        # Workers lose descriptor 0, so they read a copy of it.
        return Input(Path(f"/dev/fd/{os.dup(0)}"), "-", format or "jsonl", "", 0, os.getpid())
    told, compression = _kind(path)
    status = path.stat()
    return Input(path, str(path), format or told or "text", compression, status.st_size, status.st_mtime_ns)
