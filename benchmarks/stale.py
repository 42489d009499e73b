"""Lists the tables of the docs whose code has changed since they were made.

    python benchmarks/stale.py                          lists them; `make stale` is the same
    python benchmarks/stale.py --mark docs/speed.md     marks the tables that have no mark yet

A mark is a line above a table that has figures:

    <!-- made by benchmarks/memory.py, code 0f3a5c... -->     the digest of the script and of all that it imports
    <!-- measured by hand at d98e8a64 -->                     a commit, where no script of ours made it
    <!-- nothing measured -->                                 figures that are examples or definitions

The digest is one of syntax trees, without docstrings: comments and format do not count. A script that writes a
page marks it itself (``mark_of``). Which files count is read from imports, and from strings that name a file of
the repository, since a benchmark may start it.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from megarc.errors import UserError, run_script

ROOT = Path(__file__).resolve().parents[1]
_MADE = re.compile(r"<!-- made by (\S+), code ([0-9a-f]{12}) -->")
_BY_HAND = re.compile(r"<!-- measured by hand at ([0-9a-f]{7,40}) -->")
_NO_FIGURES = re.compile(r"<!-- nothing measured -->")
_SCRIPT = re.compile(r"\b((?:benchmarks|launch|data_tools|docs)/[\w/]+\.py)")
_NUMBER = re.compile(r"[-+±~]?[\d.,]*\d[\d.,e+-]*\s*(%|s|ms|GB|MB|MiB|GiB|M|B|k|x)?")
_PLACES = (".", "tests", "benchmarks")  # where a script's imports may lie
_NEAR = 30  # lines above a table in which its script is named


@dataclass(frozen=True, slots=True)
class Table:
    """The number of its first line, counted from 0, and of the line behind it."""

    begin: int
    end: int


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mark", type=Path, nargs="+", metavar="PAGE", help="pages whose tables get marks")
    arguments = parser.parse_args()
    for page in arguments.mark or []:
        mark(page)
    found = list(stale(ROOT))
    print("\n".join(found) if found else "no table is older than its code")
    return 0


def stale(root: Path) -> Iterator[str]:
    """A line for each table of root/docs that is older than its code, has none, or was measured by hand."""
    code, digests = Code(root), dict[str, str]()
    for page in sorted((root / "docs").glob("*.md")):
        lines = page.read_text().splitlines()
        for table in tables(lines):
            place = f"docs/{page.name}:{table.begin + 1}"
            if made := _mark_above(lines, table, _MADE):
                script, digest = made.groups()
                now = digests.get(script) or (code.digest(script) if (root / script).exists() else "")
                digests[script] = now
                if now != digest:
                    yield f"{place}: {script} {'or what it imports has changed' if now else 'is gone'}"
            elif by_hand := _mark_above(lines, table, _BY_HAND):
                yield f"{place}: measured by hand at {by_hand[1]}"
            elif not _mark_above(lines, table, _NO_FIGURES):
                yield f"{place}: no mark says what made it"


def mark_of(script: str, root: Path = ROOT) -> str:
    """The mark for a table that ``script`` makes now."""
    return f"<!-- made by {script}, code {Code(root).digest(script)} -->"


def tables(lines: list[str]) -> list[Table]:
    """The tables that hold figures: in a third of their cells or more, headings and first column left out."""
    found, begin = [], None
    for number, line in enumerate([*lines, ""]):
        if line.lstrip().startswith("|"):
            begin = number if begin is None else begin
        elif begin is not None:
            if _has_figures(lines[begin + 2 : number]):
                found.append(Table(begin, number))
            begin = None
    return found


class Code:
    """The Python files of a repository at ``root``, each read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read: dict[Path, tuple[str, set[Path]]] = {}

    def digest(self, script: str) -> str:
        """Of ``script`` and of every file of the repository that it leads to."""
        found: set[Path] = set()
        todo = [self.root / script]
        while todo:
            path = todo.pop()
            if path not in found:
                found.add(path)
                todo += self._file(path)[1]
        state = hashlib.sha256()
        for path in sorted(found):
            state.update(f"{path.relative_to(self.root)}\n{self._file(path)[0]}\n".encode())
        return state.hexdigest()[:12]

    def _file(self, path: Path) -> tuple[str, set[Path]]:
        """Its syntax tree as text, and the files that it leads to."""
        if path not in self._read:
            tree = ast.parse(path.read_text())
            led_to = set(_led_to(self.root, path, tree))
            self._read[path] = ast.dump(_without_docstrings(tree)), led_to
        return self._read[path]


def mark(page: Path) -> None:
    """Marks the tables of ``page`` that have no mark by the commit that changed them last: its code made them."""
    lines = page.read_text().splitlines()
    for table in reversed(tables(lines)):
        if any(_mark_above(lines, table, kind) for kind in (_MADE, _BY_HAND, _NO_FIGURES)):
            continue
        commit = _last_commit(page, table)
        scripts = _SCRIPT.findall("\n".join(lines[max(0, table.begin - _NEAR) : table.begin]))
        with _tree_at(commit) as root:
            there = [script for script in scripts if (root / script).exists()]
            line = mark_of(there[-1], root) if there else f"<!-- measured by hand at {commit} -->"
        lines[table.begin : table.begin] = [line, ""]
    page.write_text("\n".join(lines) + "\n")


def _mark_above(lines: list[str], table: Table, kind: re.Pattern[str]) -> re.Match[str] | None:
    return next(
        (found for line in lines[max(0, table.begin - 2) : table.begin] if (found := kind.match(line))), None
    )


def _has_figures(rows: list[str]) -> bool:
    cells = [cell.strip() for row in rows for cell in row.strip().strip("|").split("|")[1:]]
    numbers = sum(bool(_NUMBER.fullmatch(cell)) for cell in cells)
    return bool(cells) and 3 * numbers >= len(cells)


def _led_to(root: Path, path: Path, tree: ast.Module) -> Iterator[Path]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith(".py"):
            yield from (file for file in (root / node.value, path.parent / node.value) if file.is_file())
        for name in names:
            for place in _PLACES:
                base = root / place / name.replace(".", "/")
                yield from (
                    file.resolve()
                    for file in (base.with_suffix(".py"), base / "__init__.py")
                    if file.is_file()
                )


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:]
    return tree


def _last_commit(page: Path, table: Table) -> str:
    """The newest of those that changed a line of it."""
    blame = _git("blame", "-t", "-s", "-L", f"{table.begin + 1},{table.end}", "--", str(page)).splitlines()
    return max(
        _git("show", "-s", "--format=%ct %h", line.split()[0].lstrip("^")).strip() for line in blame
    ).split()[1]


class _tree_at(tempfile.TemporaryDirectory[str]):
    """The repository as a commit has it, while the block runs."""

    def __init__(self, commit: str) -> None:
        super().__init__()
        with tarfile.open(fileobj=BytesIO(_git_bytes("archive", commit))) as archive:
            archive.extractall(self.name, filter="data")

    def __enter__(self) -> Path:  # type: ignore[override]
        return Path(super().__enter__()).resolve()


def _git(*words: str) -> str:
    return _git_bytes(*words).decode()


def _git_bytes(*words: str) -> bytes:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True)
    if done.returncode:
        raise UserError(f"git {' '.join(words)} failed: {done.stderr.decode().strip()}")
    return done.stdout


if __name__ == "__main__":
    run_script(main)
