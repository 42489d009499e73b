"""SMT-LIB, answered by z3 -in."""

from __future__ import annotations

import functools
import re
import secrets
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from megarc.interpreter.languages.base import FIRST, Language, Outcome, Session, Variation
from megarc.interpreter.languages.clean_output import clean
from megarc.interpreter.languages.python import version
from megarc.interpreter.languages.smt_syntax import complete
from megarc.interpreter.sandbox import Heard, Program, Sandbox

_INSIDE = "/opt/interpreter/z3"
_ERROR = re.compile(rb"^\(error |^unsupported", re.MULTILINE)
_WORK = 20_000_000  # z3's own count of steps a query: the same on every machine, where seconds are not


class Smt(Language):
    """The z3 at ``path``, Debian's or the one of the z3-solver wheel."""

    name = "smt"

    def __init__(self, path: Path) -> None:
        self._path = path

    @functools.cached_property
    def identity(self) -> str:
        return f"{version([str(self._path), '--version'])}, rlimit {_WORK}"

    def start(self, sandbox: Sandbox, variation: Variation = FIRST) -> Session:
        command = (_INSIDE, "-in", "-smt2", f"rlimit={_WORK}")
        readable = ((str(self._path.resolve()), _INSIDE),)
        return SmtSession(sandbox, Program(command, {}, readable, merged=True, hostname=variation.hostname))


class SmtSession(Session):
    """One z3 process. What a check answers depends on all that came before, popped scopes included."""

    def __init__(self, sandbox: Sandbox, program: Program) -> None:
        super().__init__("smt", sandbox, program)
        self._ready(*self._closed(b""))

    def run(self, source: str) -> Outcome:
        if not complete(source):
            return Outcome("", "incomplete")
        request, answered = self._closed(source.encode("utf-8", "replace"))
        heard = self._ask(request, answered)
        written = bytes(heard.output)
        written = written[: written.rindex(self._mark)] if self._mark in written else written
        if heard.end != "answered":
            return Outcome(clean(written), heard.end)
        return Outcome(clean(written), "failed" if _ERROR.search(written) else "done")

    def _closed(self, source: bytes) -> tuple[bytes, Callable[[Heard], bool]]:
        """A request that ends by having z3 say a word that nobody could guess, and what listens for it."""
        self._mark = secrets.token_hex(12).encode()

        def answered(heard: Heard) -> bool:
            return heard.output.endswith(self._mark + b"\n")

        return source + b'\n(echo "' + self._mark + b'")\n', answered


def find_z3() -> Path | None:
    """Debian's z3, or the wheel's, which lies beside Python."""
    beside = Path(sys.executable).parent / "z3"
    found = shutil.which("z3", path="/usr/bin:/usr/local/bin") or shutil.which(str(beside))
    return Path(found) if found else None
