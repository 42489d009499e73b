"""Python, as at its prompt: each statement in turn, the value of an expression is shown, errors too."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import orjson

from megarc.errors import UserError
from megarc.interpreter.languages.base import FIRST, Language, Outcome, Session, Variation
from megarc.interpreter.languages.clean_output import clean
from megarc.interpreter.sandbox import Heard, Program, Sandbox

_DRIVER = Path(__file__).with_name("python_driver.py")


class Python(Language):
    """The Python at ``path``; it has its standard library and nothing else that lies outside /usr."""

    name = "python"

    def __init__(self, path: Path) -> None:
        self._path = path

    @functools.cached_property
    def identity(self) -> str:
        return f"{version([str(self._path), '-I', '--version'])}, driver {_source()[1]}"

    def start(self, sandbox: Sandbox, variation: Variation = FIRST) -> Session:
        environment = {
            "PYTHONHASHSEED": str(variation.seed),
            "TZ": variation.zone,
            "LC_ALL": "C.UTF-8",
            "OPENBLAS_NUM_THREADS": "1",  # else numpy wants address space for each core of the host
            "COLUMNS": "80",
        }
        # Not -I, which would ignore the hash seed: the environment is empty and the folder the sandbox's own.
        command = (str(self._path), "-s", "-B", "-c", _source()[0])
        program = Program(command, environment, _folders(self._path), hostname=variation.hostname)
        return PythonSession(sandbox, program)


class PythonSession(Session):
    """One Python process. A piece's output is all that it and its children wrote until it came back."""

    def __init__(self, sandbox: Sandbox, program: Program) -> None:
        super().__init__("python", sandbox, program)
        self._number = 0
        self._ready(self._request(""), self._answered)

    def run(self, source: str) -> Outcome:
        heard = self._ask(self._request(source), self._answered)
        output = clean(bytes(heard.output))
        if heard.end != "answered":
            return Outcome(output, heard.end)
        return Outcome(output, "failed" if self._answer(heard) else "done")

    def _request(self, source: str) -> bytes:
        self._number += 1
        # The source travels as text in JSON, so a line end or a NUL in it is no line end of the protocol.
        return orjson.dumps({"source": source, "number": self._number}) + b"\n"

    def _answered(self, heard: Heard) -> bool:
        return self._answer(heard) is not None

    def _answer(self, heard: Heard) -> bool | None:
        """Whether the piece failed; None while there is no answer."""
        for line in heard.control.splitlines():
            try:
                answer = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            if isinstance(answer, list) and len(answer) == 2 and answer[0] == self._number:
                return bool(answer[1])
        return None


def find_python() -> Path | None:
    """The system's Python; this one, where there is none."""
    for path in (Path("/usr/bin/python3"), Path(sys._base_executable)):  # type: ignore[attr-defined]
        if path.exists():
            return path
    return None


def version(command: list[str]) -> str:
    """What a program says of itself.

    Raises:
        UserError: where it does not.
    """
    try:
        said = subprocess.run(command, capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"{' '.join(command)} does not tell its version: {error}") from None
    return clean(said.stdout or said.stderr).strip()


def _folders(path: Path) -> tuple[tuple[str, str], ...]:
    """What a Python outside /usr needs to see of the host: its installation."""
    real = path.resolve()
    if real.is_relative_to("/usr"):
        return ()
    home = str(real.parent.parent)
    return ((home, home),)


@functools.cache
def _source() -> tuple[str, str]:
    """The driver's text, and a digest of it."""
    import hashlib

    text = _DRIVER.read_text(encoding="utf-8")
    # Run by -c it has no file name of its own.
    return f"__file__ = '<string>'\n{text}", hashlib.sha256(text.encode()).hexdigest()[:12]
