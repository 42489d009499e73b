"""Coq, through coqtop with the prompts that Emacs is given: one a sentence."""

from __future__ import annotations

import functools
import re
import secrets
import shutil
from pathlib import Path

from megarc.interpreter.languages.base import FIRST, Language, Outcome, Session, Status, Variation
from megarc.interpreter.languages.clean_output import clean
from megarc.interpreter.languages.coq_sentences import sentences
from megarc.interpreter.languages.python import version
from megarc.interpreter.sandbox import Heard, Program, Sandbox

_PROMPT = re.compile(rb"<prompt>[^<]*< \d+ \|[^<]*\| \d+ < </prompt>\s*$")
_PROMPTS = re.compile(r"<prompt>[^<]*< \d+ \|[^<]*\| \d+ < </prompt>")
_TAGS = re.compile(r"</?(?:infomsg|warning)>")
_FAILED = re.compile(r"^(?:Error|Syntax error|Anomaly)\b", re.MULTILINE)
_MEMORY = 2 << 30  # the standard library alone takes half a gibibyte


class Coq(Language):
    """The coqtop at ``path``."""

    name = "coq"

    def __init__(self, path: Path) -> None:
        self._path = path

    @functools.cached_property
    def identity(self) -> str:
        return version([str(self._path), "--version"])

    def start(self, sandbox: Sandbox, variation: Variation = FIRST) -> Session:
        limits = sandbox.limits
        roomy = limits.model_copy(update={"memory": max(limits.memory, _MEMORY)})
        program = Program(
            (str(self._path), "-q", "-emacs"), {}, _readable(), merged=True, hostname=variation.hostname
        )
        return CoqSession(Sandbox(roomy, sandbox.enclosed), program)


class CoqSession(Session):
    """One coqtop. After an error the state is as before it, and an open proof stays open."""

    def __init__(self, sandbox: Sandbox, program: Program) -> None:
        super().__init__("coq", sandbox, program)
        self._ready(b"", _at_prompt)

    def run(self, source: str) -> Outcome:
        whole, rest = sentences(source)
        if sentences(f"{rest} Check Set.")[0] != ["Check Set."]:
            return Outcome("", "incomplete")
        output, failed = "", False
        for sentence in whole:
            heard = self._ask(sentence.encode("utf-8", "replace") + b"\n", _at_prompt)
            said = _shown(bytes(heard.output))
            output += said
            failed |= bool(_FAILED.search(said))
            if heard.end != "answered":
                return Outcome(output, heard.end)
        rest, end = self._settled()
        return Outcome(output + rest, end or ("failed" if failed else "done"))

    def _settled(self) -> tuple[str, Status | None]:
        """Asks for a name that nobody could guess: what comes before that answer is still the piece's.

        So a message that looks like a prompt shifts nothing. The question fails, and leaves the state as it is.
        """
        mark = f"q{secrets.token_hex(12)}"

        def answered(heard: Heard) -> bool:
            return heard.output.count(mark.encode()) >= 2 and _at_prompt(heard)

        heard = self._ask(f"Check {mark}.\n".encode(), answered)
        said = bytes(heard.output)
        if heard.end != "answered":
            return _shown(said), heard.end
        return _shown(said[: said.rindex(b"Toplevel input", 0, said.index(mark.encode()))]), None


def _readable() -> tuple[tuple[str, str], ...]:
    """Debian's coqtop asks where OCaml's packages lie."""
    path = Path("/etc/ocamlfind.conf")
    return ((str(path), str(path)),) if path.exists() else ()


def _at_prompt(heard: Heard) -> bool:
    return bool(_PROMPT.search(heard.output))


def _shown(written: bytes) -> str:
    text = _TAGS.sub("", _PROMPTS.sub("", clean(written)))
    lines = [line.rstrip() for line in text.splitlines()]
    return "".join(f"{line}\n" for line in lines if line)


def find_coqtop() -> Path | None:
    found = shutil.which("coqtop", path="/usr/bin:/usr/local/bin")
    return Path(found) if found else None
