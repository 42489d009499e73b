"""The languages that are installed, by name."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from megarc.config import Config, key
from megarc.errors import UserError
from megarc.interpreter.languages.base import Language
from megarc.interpreter.languages.coq import Coq, find_coqtop
from megarc.interpreter.languages.lean import Lean
from megarc.interpreter.languages.python import Python, find_python
from megarc.interpreter.languages.smt import Smt, find_z3

KNOWN = ("python", "coq", "smt", "lean")


class LanguagesConfig(Config):
    """Where the interpreters lie."""

    python: Path | None = key(None, "Python; empty: the system's", circumstance=True)
    coq: Path | None = key(None, "coqtop; empty: the system's", circumstance=True)
    smt: Path | None = key(None, "z3; empty: the system's, or the z3-solver wheel's", circumstance=True)
    lean: str | None = key(None, "command that starts Lean's REPL, as seen inside", circumstance=True)
    lean_folders: list[Path] = key([], "folders that Lean reads: toolchain, REPL, library", circumstance=True)


def open_languages(names: Sequence[str], config: LanguagesConfig | None = None) -> dict[str, Language]:
    """The languages ``names``, each of them there.

    Raises:
        UserError: for an unknown one, one that is not installed, none at all.
    """
    config = config or LanguagesConfig()
    if not names:
        raise UserError(f"no language is named; known are {', '.join(KNOWN)}")
    found: dict[str, Language] = {}
    for name in names:
        if name not in KNOWN:
            raise UserError(f"unknown language '{name}'; known are {', '.join(KNOWN)}")
        found[name] = _open(name, config)
    return found


def _open(name: str, config: LanguagesConfig) -> Language:
    if name == "lean":
        if not config.lean:
            raise UserError(
                "lean is not installed with megarc: name the command of its REPL (--lean 'FOLDER/repl') and the "
                "folders that it reads (--lean-folder)"
            )
        return Lean(shlex.split(config.lean), [_there("lean", folder) for folder in config.lean_folders])
    find, make, hint = _FOUND[name]
    path = getattr(config, name) or find()
    if path is None:
        raise UserError(f"{name} is not installed here: {hint}")
    language = make(_there(name, path))
    _ = language.identity  # asked now: what cannot tell its version is no interpreter
    return language


def _there(name: str, path: Path) -> Path:
    if not path.exists():
        raise UserError(f"{name}: there is no {path}")
    return path.absolute()


_FOUND: dict[str, tuple[Callable[[], Path | None], Callable[[Path], Language], str]] = {
    "python": (find_python, Python, "no python3 was found"),
    "coq": (find_coqtop, Coq, "Debian has it (apt-get install coq)"),
    "smt": (find_z3, Smt, "pip install 'megarc[smt]', or Debian's package z3"),
}
