"""Copies the configurations, job.sh, elastic.sh and the hostfile's example into a folder of yours."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples, resources
from megarc.errors import UserError, run_script
from megarc.paths import user_path

EXAMPLES = """examples:
  python launch/init.py                 into the current folder
  python launch/init.py my-project      into a folder that is made

A file that is already there and differs is an error, and nothing is copied; --force replaces it."""


def main() -> None:
    arguments = parser().parse_args()
    root = resources()
    wanted = {Path("launch", name): root / "launch" / name for name in ("job.sh", "elastic.sh")}
    wanted[Path("hostfile.example")] = _hostfile(root)
    wanted |= {file.relative_to(root): file for file in sorted((root / "configs").rglob("*.yaml"))}
    copies = {arguments.folder / name: source for name, source in wanted.items()}
    if not arguments.force:
        changed = [str(copy) for copy, source in copies.items() if _differs(copy, source)]
        if changed:
            raise UserError(
                f"{', '.join(changed[:3])}{' and more' * (len(changed) > 3)} would be replaced; "
                "give --force to replace them, or another folder"
            )
    for copy, source in copies.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not (copy.exists() and copy.samefile(source)):
            shutil.copy(source, copy)
    print(
        f"{arguments.folder}: {len(copies)} files; the configurations are in {arguments.folder / 'configs'}"
    )


def _differs(copy: Path, source: Path) -> bool:
    return copy.exists() and copy.read_bytes() != source.read_bytes()


def _hostfile(root: Path) -> Path:
    """A wheel keeps it beside job.sh, a checkout at the top."""
    inside = root / "launch" / "hostfile.example"
    return inside if inside.exists() else root / "hostfile.example"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", nargs="?", type=user_path, default=Path(), help="where to (the current folder)"
    )
    parser.add_argument("--force", action="store_true", help="replace files that differ")
    return parser


if __name__ == "__main__":
    run_script(main)
