"""An environment that outlives what its pieces do to it."""

from __future__ import annotations

from types import TracebackType

from megarc.interpreter.languages.base import FIRST, Language, Outcome, Session, Variation
from megarc.interpreter.sandbox import Sandbox


class Enduring:
    """Runs pieces one after the other. After one that ended the interpreter, a fresh one runs again all that
    came before it and ended well, so that the next piece finds what an interrupt would have left.

    Args:
        restarts: after so many ends nothing more is run: ``not run``.
    """

    def __init__(
        self, language: Language, sandbox: Sandbox, variation: Variation = FIRST, restarts: int = 3
    ) -> None:
        self._language, self._sandbox, self._variation = language, sandbox, variation
        self._left = restarts
        self._session: Session | None = None
        self._history: list[str] = []

    def run(self, source: str) -> Outcome:
        """Runs one piece; never raises for anything that pieces do.

        Raises:
            UserError: where the interpreter itself does not start.
        """
        session = self._session or self._begun()
        if session is None:
            return Outcome("", "not run")
        outcome = session.run(source)
        if not outcome.alive:
            self._over(session)
        elif outcome.status != "incomplete":
            self._history.append(source)
        return outcome

    def stop(self) -> None:
        if self._session is not None:
            self._session.stop()
            self._session = None

    def __enter__(self) -> Enduring:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _begun(self) -> Session | None:
        """A session in which all that came before has run again; None where there were too many ends."""
        while self._left >= 0:
            session = self._language.start(self._sandbox, self._variation)
            if all(session.run(source).alive for source in self._history):
                self._session = session
                return session
            self._over(session)
        return None

    def _over(self, session: Session) -> None:
        session.stop()
        self._session = None
        self._left -= 1
