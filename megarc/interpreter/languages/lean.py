"""Lean 4, through the JSON of its REPL (leanprover-community/repl): a command and an environment in, messages out.

Lean is not installed by anything here: the user names the command of the REPL and the folders that it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from megarc.interpreter.languages.base import FIRST, Language, Outcome, Session, Variation
from megarc.interpreter.languages.clean_output import clean
from megarc.interpreter.sandbox import Heard, Program, Sandbox

_MEMORY = 16 << 30  # Lean maps its library: much address space, less memory


class Lean(Language):
    """The REPL that ``command`` starts; ``folders`` of the host are seen inside where they lie outside."""

    name = "lean"

    def __init__(self, command: Sequence[str], folders: Sequence[Path]) -> None:
        self._command, self._folders = tuple(command), tuple(folders)

    @property
    def identity(self) -> str:
        # Its version cannot be had without starting it; where its files lie names the toolchain.
        return " ".join([*self._command, *(str(folder.resolve()) for folder in self._folders)])

    def start(self, sandbox: Sandbox, variation: Variation = FIRST) -> Session:
        limits = sandbox.limits
        roomy = limits.model_copy(update={"memory": max(limits.memory, _MEMORY)})
        readable = tuple((str(folder), str(folder)) for folder in self._folders)
        program = Program(self._command, {}, readable, hostname=variation.hostname)
        return LeanSession(Sandbox(roomy, sandbox.enclosed), program)


class LeanSession(Session):
    """One REPL. A piece's environment is the one that the last answer named."""

    def __init__(self, sandbox: Sandbox, program: Program) -> None:
        super().__init__("lean", sandbox, program)
        self._environment: int | None = None
        heard = self._ready(_request("", None), _whole)
        self._environment = _answer(heard).get("env")

    def run(self, source: str) -> Outcome:
        heard = self._ask(_request(source, self._environment), _whole)
        if heard.end != "answered":
            return Outcome(clean(bytes(heard.control)), heard.end)
        answer = _answer(heard)
        self._environment = answer.get("env", self._environment)
        return Outcome(_shown(answer), "done" if accepted(answer) else "failed")


def accepted(answer: dict[str, Any]) -> bool:
    """Whether Lean took a piece whole: no error, nothing left to prove."""
    worst = [message.get("severity") for message in answer.get("messages", [])]
    return "env" in answer and "error" not in worst and not answer.get("sorries")


def _request(source: str, environment: int | None) -> bytes:
    named = {} if environment is None else {"env": environment}
    return orjson.dumps({"cmd": source, **named}) + b"\n\n"


def _whole(heard: Heard) -> bool:
    return heard.output.endswith((b"\n\n", b"}\n")) and bool(_answer(heard))


def _answer(heard: Heard) -> dict[str, Any]:
    """The JSON object heard; empty while it is not whole."""
    try:
        read = orjson.loads(bytes(heard.output))
    except orjson.JSONDecodeError:
        return {}
    return read if isinstance(read, dict) else {}


def _shown(answer: dict[str, Any]) -> str:
    """Messages as Lean prints them, without their places: ``severity: text``."""
    if "env" not in answer:
        return clean(str(answer.get("message", answer)).encode()) + "\n"
    lines = [f"{one.get('severity')}: {one.get('data')}" for one in answer.get("messages", [])]
    lines += [f"sorry: {one.get('goal')}" for one in answer.get("sorries", [])]
    return clean("".join(f"{line.rstrip()}\n" for line in lines).encode())
