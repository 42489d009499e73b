"""Work shared out among processes. One that dies is noticed and named; nothing ever waits for it."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any

from megarc.errors import UserError

Do = Callable[[int, Callable[[Any], None]], None]
_PR_SET_PDEATHSIG = 1


def share_out(
    do: Do, items: Iterable[int], workers: int, heard: Callable[[Any], None], describe: Callable[[int], str]
) -> None:
    """``do(item, tell)`` for every item, in ``workers`` forked processes; what they tell is ``heard`` here.

    Args:
        workers: 0: in this process, which then shares the fate of its work.
        describe: an item in words, for the report of a worker's death.

    Raises:
        UserError: raised by an item, or for a worker that died.
    """
    left = iter(items)
    if workers == 0:
        for item in left:
            do(item, heard)
        return
    team = [_hire(do) for _ in range(workers)]
    try:
        busy = [member for member in team if member.give(next(left, None))]
        while busy:
            ready = wait([member.connection for member in busy])
            for member in [member for member in busy if member.connection in ready]:
                if member.listen(heard, describe) and not member.give(next(left, None)):
                    busy.remove(member)
    finally:
        for member in team:
            member.dismiss()


@dataclass
class _Member:
    process: ForkProcess
    connection: Connection
    item: int | None = None

    def give(self, item: int | None) -> bool:
        """Hands over the next item; False where there is none."""
        self.item = item
        if item is not None:
            with suppress(BrokenPipeError):  # it died; listening finds out
                self.connection.send(item)
        return item is not None

    def listen(self, heard: Callable[[Any], None], describe: Callable[[int], str]) -> bool:
        """Takes one message; True where the item is done."""
        try:
            kind, content = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            where = describe(self.item) if self.item is not None else "between two pieces"
            raise UserError(
                f"a worker died ({_cause(self.process.exitcode)}) at {where}. Whole parts are kept: "
                "the same command goes on from them"
            ) from None
        if kind == "user":
            raise content
        if kind == "bug":
            raise RuntimeError(f"in a worker, at {describe(self.item or 0)}:\n{content}")
        if kind == "news":
            heard(content)
        return bool(kind == "done")

    def dismiss(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _hire(do: Do) -> _Member:
    context = multiprocessing.get_context("fork")  # shares the tokenizer's memory
    ours, theirs = context.Pipe()
    process = context.Process(target=_labour, args=(do, theirs, os.getpid()), daemon=True)
    process.start()
    theirs.close()  # so that its death closes the pipe
    return _Member(process, ours)


def _labour(do: Do, connection: Connection, boss: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the boss's to answer
    _die_with(boss)
    while True:
        try:
            item = connection.recv()
            do(item, lambda news: connection.send(("news", news)))
            connection.send(("done", item))
        except EOFError:
            return
        except UserError as error:
            connection.send(("user", error))
        except BrokenPipeError:
            return
        except Exception:
            connection.send(("bug", traceback.format_exc()))


def _die_with(boss: int) -> None:
    """A killed boss leaves no workers behind (Linux; elsewhere they end with their piece)."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (AttributeError, OSError):
        return
    if os.getppid() != boss:
        os._exit(1)


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}; out of memory?" if name == "SIGKILL" else f"killed by {name}"
    return f"exit code {code}"
