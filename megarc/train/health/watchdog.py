"""A thread that ends a job which doesn't move any more, and says who is to blame."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from megarc.atomic_write import written_atomically
from megarc.errors import UserError
from megarc.parallel import Group
from megarc.train.health.hang_report import culprits, look, read_sights, report, write_sight
from megarc.train.heartbeat import Heartbeat

EXIT_HUNG = 1
_MORE_SECONDS_AT_START = 600.0  # building the engine, reading a checkpoint
_ALARM = "hang.alarm"
REPORT = "hang.txt"


def clear(folder: Path) -> None:
    """Removes what an earlier hang left."""
    for file in [*folder.glob("hang-*.json"), folder / _ALARM, folder / REPORT]:
        file.unlink(missing_ok=True)


def alarmed(folder: Path) -> bool:
    """Whether a rank found that the job hangs; its report names the cause."""
    return (folder / _ALARM).exists()


@contextmanager
def watched(
    heartbeat: Heartbeat, folder: Path, world: Group, patience: float, tell: Callable[[str, list[int]], None]
) -> Iterator[None]:
    """Watches this rank while the block runs.

    Where its phase lasts longer than ``patience`` seconds, or another rank's
    did, it writes down what it sees of itself. The first to notice puts all
    sights together in ``hang.txt``; then every rank ends its process, which
    makes the launcher end the job.

    Args:
        folder: of the run, where ranks leave their files.
        tell: the first to notice tells it the headline and the ranks to blame.
    """
    stop = threading.Event()
    watch = _Watch(heartbeat, folder, world, patience, tell)
    thread = threading.Thread(target=watch.run, args=(stop,), name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()


class _Watch:
    def __init__(
        self,
        heartbeat: Heartbeat,
        folder: Path,
        world: Group,
        patience: float,
        tell: Callable[[str, list[int]], None],
    ) -> None:
        self.heartbeat, self.folder, self.world, self.patience, self.tell = (
            heartbeat,
            folder,
            world,
            patience,
            tell,
        )
        self.poll = min(5.0, patience / 10)
        # Others notice at their next look, or have their own patience run out.
        self.grace = 2 * self.poll + min(20.0, patience / 2)

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(self.poll):
            if self._stuck() or alarmed(self.folder):
                # The disk may be what hangs: this process ends in any case.
                speaker = threading.Thread(target=self._speak, name="watchdog-speaks", daemon=True)
                speaker.start()
                speaker.join(3 * self.grace)
                os._exit(EXIT_HUNG)

    def _stuck(self) -> bool:
        # A start that finds its run finished takes no step.
        starting = self.heartbeat.step == 0 and self.heartbeat.phase not in ("ending", "saving")
        at_start = _MORE_SECONDS_AT_START if starting else 0.0
        return time.monotonic() - self.heartbeat.since > self.patience + at_start

    def _speak(self) -> None:
        with suppress(OSError):
            write_sight(look(self.world.rank, self.heartbeat), self.folder)
        try:
            (self.folder / _ALARM).touch(exist_ok=False)
        except FileExistsError:
            self._wait(lambda: (self.folder / REPORT).exists(), 2 * self.grace)
            return
        except OSError:
            pass  # no folder any more: this rank speaks for itself
        self._wait(lambda: all(read_sights(self.folder, self.world.size)), self.grace)
        sights = read_sights(self.folder, self.world.size)
        if not any(sights):
            sights[self.world.rank] = look(self.world.rank, self.heartbeat)
        text = report(sights, self.patience)
        print(text, file=sys.stderr, flush=True)
        self.tell(text.splitlines()[0], culprits(sights)[0])
        if self.folder.is_dir():  # and is not made anew where it has vanished
            with suppress(UserError), written_atomically(self.folder / REPORT) as file:
                file.write(text.encode())  # last: the others end when they see it

    def _wait(self, until: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not until() and time.monotonic() < end:
            time.sleep(min(0.1, self.poll))
