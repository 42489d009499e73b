"""Mistakes of the user, shown without a traceback."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_USER_ERROR = 2
EXIT_SAVED = 75  # the run stopped early and is saved: give the same command again
EXIT_INTERRUPTED = 130
_SECONDS_TO_REPORT = 1.0  # launchers end all ranks as soon as one is gone: not before it has said why


class UserError(Exception):
    """What is wrong, where, and what to do about it, in words for the user.

    Raise it for anything that a user can put right: a missing file, a wrong
    key, a value out of range. Everything else is a bug of ours and keeps its
    traceback.
    """


class ToldByAnotherRank(UserError):
    """A ``UserError`` of the whole job, which another rank prints; this one ends quietly."""


@contextmanager
def reported_once(first: bool) -> Iterator[None]:
    """For a mistake that every rank meets alike: the first one tells it, the others end quietly."""
    try:
        yield
    except UserError as error:
        raise error if first else ToldByAnotherRank(str(error)) from None


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the block as an exception does, so that its processes and temporary folders are put away.

    The second one ends this process at once. In another thread than the first, where Python allows no handler, the
    block runs as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def kind_of(value: object) -> str:
    """What ``value``, of a JSON or YAML file, is in that file's words: "a number"."""
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(
        type(value), "a number" if isinstance(value, int | float) else f"a {type(value).__name__}"
    )


def shortened(text: str, most: int = 2000) -> str:
    """``text`` of whatever length, for a small file or a line of a log: its beginning and its end where it is longer.

    A compiler's or a library's message may hold a whole program.
    """
    if len(text) <= most:
        return text
    kept = most // 2
    return f"{text[:kept]} [{len(text) - 2 * kept} characters left out] {text[-kept:]}"


def run_script(main: Callable[[], int | None]) -> None:
    """Runs a script's ``main`` and exits: the last line of every script.

    A ``UserError`` is printed to standard error and exits with 2; Ctrl-C exits
    with 130; a reader that closed the pipe (``| head``) ends quietly.
    """
    try:
        code = main() or 0
        sys.stdout.flush()
    except UserError as error:
        if isinstance(error, ToldByAnotherRank):
            time.sleep(_SECONDS_TO_REPORT)
        else:
            print(f"error: {error}", file=sys.stderr)
        code = EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)
