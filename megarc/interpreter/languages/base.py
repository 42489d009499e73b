"""What a language offers: an environment that is started, given pieces one after the other, and stopped."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from megarc.errors import UserError
from megarc.interpreter.languages.clean_output import clean
from megarc.interpreter.sandbox import Heard, Process, Program, Sandbox, StartError

Status = Literal[
    "done", "failed", "incomplete", "ended", "too long", "too much output", "too much memory", "not run"
]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a piece.

    Attributes:
        output: what the interpreter said, made fit to be shown: UTF-8, no control characters.
        status: ``done``; ``failed``: the interpreter itself says so (an error is an output too);
            ``incomplete``: not sent, because it would have swallowed the next piece; ``not run``: the environment
            had ended too often. The others end the environment.
    """

    output: str
    status: Status

    @property
    def alive(self) -> bool:
        """Whether the environment goes on."""
        return self.status in ("done", "failed", "incomplete")


@dataclass(frozen=True, slots=True)
class Variation:
    """Circumstances that no output may depend on: two runs under different ones show which do."""

    seed: int = 1
    zone: str = "Etc/GMT+12"
    hostname: str = "sandbox"


FIRST = Variation()
SECOND = Variation(seed=20_000_003, zone="Etc/GMT-14", hostname="elsewhere")
"""26 hours apart, so that even a date differs."""


class Language(ABC):
    """One interpreter, installed here.

    Attributes:
        name: as the tag has it: ``<in:python>``.
    """

    name: str

    @property
    @abstractmethod
    def identity(self) -> str:
        """What outputs depend on beside the source: the interpreter and its version."""

    @abstractmethod
    def start(self, sandbox: Sandbox, variation: Variation = FIRST) -> Session:
        """A fresh environment.

        Raises:
            UserError: where the interpreter does not start.
        """


class Session(ABC):
    """An environment. What one piece defines the next one sees; after a piece that ends it, nothing more."""

    def __init__(self, name: str, sandbox: Sandbox, program: Program) -> None:
        self._name, self._sandbox = name, sandbox
        self._limits = sandbox.limits
        try:
            self._process: Process = sandbox.start(program)
        except StartError as error:
            raise UserError(f"the interpreter of {name} does not start: {error}") from None

    @abstractmethod
    def run(self, source: str) -> Outcome:
        """Runs one piece; never raises for anything that the piece does."""

    def stop(self) -> None:
        self._process.stop()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _ready(self, request: bytes, answered: Callable[[Heard], bool]) -> Heard:
        """The answer to the first request, which tells that the interpreter is there."""
        heard = self._process.exchange(request, answered, self._limits.start_seconds)
        if heard.end != "answered":
            said = clean(bytes(heard.control or heard.output)).strip()[-500:]
            self.stop()
            raise UserError(
                f"the interpreter of {self._name} does not start ({heard.end}{': ' if said else ''}{said})"
            )
        return heard

    def _ask(self, request: bytes, answered: Callable[[Heard], bool]) -> Heard:
        return self._process.exchange(request, answered, self._limits.seconds)
