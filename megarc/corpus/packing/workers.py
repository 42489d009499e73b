"""Work shared out among processes. One that dies is noticed and named; nothing ever waits for it.

One that has grown too big retires after its item, and a fresh fork of the boss,
which holds all that workers begin with, takes its place: cheaper than to clear
or build anew whatever grew.
"""

from __future__ import annotations

import ctypes
import gc
import math
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
from megarc.process_memory import give_back, resident_megabytes

Do = Callable[[int, Callable[[Any], None]], None]
_PR_SET_PDEATHSIG = 1
_LEAST_GROWTH = 1.15  # of what a worker begins with, before it retires


def share_out(
    do: Do,
    items: Iterable[int],
    workers: int,
    heard: Callable[[Any], None],
    describe: Callable[[int], str],
    most_megabytes: float = math.inf,
) -> None:
    """``do(item, tell)`` for every item, in ``workers`` forked processes; what they tell is ``heard`` here.

    Args:
        workers: 0: in this process, which then shares the fate of its work.
        describe: an item in words, for the report of a worker's death.
        most_megabytes: resident, of a worker; above that it retires after its item.

    Raises:
        UserError: raised by an item, or for a worker that died.
    """
    left = iter(items)
    if workers == 0:
        for item in left:
            do(item, heard)
        return
    give_back()
    most_megabytes = max(most_megabytes, _LEAST_GROWTH * resident_megabytes())
    gc.freeze()  # else each worker's first collection copies every page that holds objects
    team = [_hire(do, most_megabytes) for _ in range(workers)]
    try:
        busy = [member for member in team if member.give(next(left, None))]
        while busy:
            ready = wait([member.connection for member in busy])
            for member in [member for member in busy if member.connection in ready]:
                if not member.listen(heard, describe):
                    continue
                busy.remove(member)
                following = next(left, None)
                if following is not None and member.retired:
                    member.dismiss()
                    team[team.index(member)] = member = _hire(do, most_megabytes)
                if member.give(following):
                    busy.append(member)
    finally:
        gc.unfreeze()
        for member in team:
            member.dismiss()


@dataclass
class _Member:
    process: ForkProcess
    connection: Connection
    item: int | None = None
    retired: bool = False

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
                "run the same command again to resume from them"
            ) from None
        if kind == "user":
            raise content
        if kind == "bug":
            raise RuntimeError(f"in a worker, at {describe(self.item or 0)}:\n{content}")
        if kind == "news":
            heard(content)
        self.retired = kind == "retired"
        return kind in ("done", "retired")

    def dismiss(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _hire(do: Do, most_megabytes: float) -> _Member:
    context = multiprocessing.get_context("fork")  # shares the tokenizer's memory
    ours, theirs = context.Pipe()
    process = context.Process(target=_labour, args=(do, theirs, os.getpid(), most_megabytes), daemon=True)
    process.start()
    theirs.close()  # so that its death closes the pipe
    return _Member(process, ours)


def _labour(do: Do, connection: Connection, boss: int, most_megabytes: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the boss's to answer
    _die_with(boss)
    while True:
        try:
            item = connection.recv()
            do(item, lambda news: connection.send(("news", news)))
            retires = resident_megabytes() > most_megabytes
            connection.send(("retired" if retires else "done", item))
            if retires:
                return
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
