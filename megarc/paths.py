"""Paths as people give them. One rule: relative to the working folder; ``~`` and ``$NAME`` are filled in."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

from megarc.errors import UserError

_NAME = re.compile(r"\$(\w+|\{[^}]*\})")


def user_path(text: str | Path) -> Path:
    """``text`` with ``~`` and ``$NAME`` filled in; otherwise as it is, relative or not.

    Raises:
        UserError: where a name is not set: a folder of that very name is never meant.
    """
    filled = os.path.expandvars(str(text))
    if (unset := _NAME.search(filled)) is not None:
        raise UserError(f"the path {str(text)!r}: {unset[0]} is not set in the environment")
    try:
        return Path(filled).expanduser()
    except RuntimeError as error:
        raise UserError(f"the path {str(text)!r}: {error}") from None


def found_from(path: Path, folder: Path) -> Path:
    """A relative path that was given in the working folder ``folder`` once, as it is found now.

    As it is, where it is there (or is the prefix of files that are); else in that folder, where it is there; else
    as it is.
    """
    if path.is_absolute() or _there(path) or not _there(folder / path):
        return path
    return folder / path


def _there(path: Path) -> bool:
    return path.exists() or any(path.parent.glob(f"{glob.escape(path.name)}.*"))
