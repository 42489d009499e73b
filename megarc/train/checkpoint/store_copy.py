"""Copies a run to an object store while it trains: its newest checkpoint, its metrics, what is needed to resume.

A thread of rank 0 looks at the run folder and copies what is new. Checkpoints are written to the disk first and
copied afterwards. So a store that is slow or unreachable costs no step and no checkpoint: the log says so, and the copy
is tried again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import orjson

from megarc.errors import UserError, reported_once
from megarc.object_upload import get_bytes, put_bytes, put_file
from megarc.parallel import gather_objects
from megarc.progress import human_bytes
from megarc.train.checkpoint import layout
from megarc.train.checkpoint.store_layout import COPYING, StoredCheckpoints
from megarc.train.engine import Engine
from megarc.train.folder import RunFolder
from megarc.train.loop import Done, Moment, Observer, Vote
from megarc.train.schedule import Interval

log = logging.getLogger("megarc")

SMALL = ("environment.json", "config.yaml", "state.json", "metrics.jsonl", "experts.jsonl", "log.txt")
"""Files of a run folder that are copied beside checkpoints and the tokenizer; environment.json names the run."""
_LOOK_SECONDS = 1.0  # between looks at the run folder
_SMALL_SECONDS = 60.0  # between copies of metrics, at least
_SHARE = 20  # copying metrics takes at most this part of the time
_PAUSE, _LONGEST_PAUSE = 15.0, 600.0  # seconds after a failure


class StoreCopy:
    """Keeps ``url`` like the run folder. Made on rank 0 alone.

    Args:
        keep, keep_every: which checkpoints stay in the store, as on the disk.
        damaged: checkpoints in the store that are replaced, whatever their manifests say.

    Attributes:
        error: why the newest checkpoint is not in the store, or None.
    """

    def __init__(
        self, url: str, folder: RunFolder, keep: int, keep_every: Interval | None, damaged: Sequence[str] = ()
    ) -> None:
        self.url, self.folder, self.keep, self.keep_every = url.rstrip("/"), folder, keep, keep_every
        self.error: str | None = None
        self._stored = StoredCheckpoints(self.url)
        self._damaged = set(damaged)
        self._copied: str | None = None  # the newest checkpoint that is there
        self._beyond: int | None = None  # checkpoints of later steps must go
        self._sizes: dict[str, tuple[int, int]] = {}
        self._next_small = 0.0
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._work, name="store-copy", daemon=True)

    @contextmanager
    def running(self) -> Iterator[StoreCopy]:
        """Copies while the block runs; at its end what is new is copied once more, and waited for."""
        self._begin()
        self._thread.start()
        try:
            yield self
        finally:
            self._ends.set()
            self._thread.join()
            self._round(last=True)

    def remove_beyond(self, step: int) -> None:
        """The run goes on from ``step``: what the store has of later steps did not happen."""
        self._beyond = step

    def _begin(self) -> None:
        """The first copy of the small files: a new run whose store is not there ends before its first step."""
        try:
            self._copy_small()
        except UserError as error:
            if not layout.finished(self.folder.checkpoints):
                raise UserError(f"checkpoint.store: {error}") from None
            log.warning("checkpoint.store: %s; the run continues, and the copy is tried again", error)

    # ---- the thread

    def _work(self) -> None:
        pause = _PAUSE
        while not self._ends.wait(_LOOK_SECONDS):
            if self._round():
                pause = _PAUSE
            else:
                self._ends.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _round(self, *, last: bool = False) -> bool:
        """Whether all that is new was copied. What fails keeps nothing else from being copied."""
        errors = []
        for act in (self._remove_beyond, self._copy_newest, lambda: self._copy_small_if_due(last)):
            try:
                act()
            except (UserError, OSError) as error:
                errors.append(str(error))
            except Exception as error:  # a fault of ours must not end the run either
                log.exception("the copy in %s failed", self.url)
                errors.append(repr(error))
        if errors:
            log.warning("the copy in %s is behind: %s; what is on the disk stays there, and %s", self.url, errors[0],
                        "the next job copies it" if last else "it is tried again")  # fmt: skip
        elif self.error is not None:
            log.info("the copy in %s is up to date again", self.url)
        self.error = errors[0] if errors else None
        return not errors

    def _remove_beyond(self) -> None:
        if (step := self._beyond) is None:
            return
        self._stored.remove_beyond(step)
        self._copied = None
        if self._beyond == step:
            self._beyond = None

    def _copy_newest(self) -> None:
        folders = layout.readable(layout.finished(self.folder.checkpoints))
        if folders and folders[-1].name != self._copied:
            self._copy(folders[-1])

    def _copy_small_if_due(self, last: bool) -> None:
        if last or time.monotonic() >= self._next_small:
            self._copy_small()

    def _copy(self, folder: Path) -> None:
        """One checkpoint, its manifest last. Its files are held open: it may be removed from the disk meanwhile."""
        begun, place = time.monotonic(), self._stored.place(folder.name)
        with ExitStack() as stack:
            try:
                manifest = (folder / layout.MANIFEST).read_bytes()
                tree = orjson.loads(manifest)
                files = {
                    name: stack.enter_context((folder / name).open("rb")) for name in sorted(tree["files"])
                }
            except FileNotFoundError:
                return  # removed since it was listed; a later one is there
            if folder.name in self._damaged or self._stored.manifest(folder.name) != manifest:
                self._make_way(folder.name, manifest)
                for name, file in files.items():
                    held = Path(f"/proc/self/fd/{file.fileno()}")
                    put_file(f"{place}/{name}", held, tree["files"][name]["size"])
                self._copy_small()  # metrics reach as far as the checkpoint
                put_bytes(f"{place}/{layout.MANIFEST}", manifest)
                size = sum(facts["size"] for facts in tree["files"].values())
                seconds = time.monotonic() - begun
                log.info("%s is copied: %s, %s in %.1f s", folder.name, place, human_bytes(size), seconds)
        self._copied = folder.name
        self._stored.prune(folder.name, self.keep, self.keep_every)

    def _make_way(self, name: str, manifest: bytes) -> None:
        """What was copied of this very checkpoint stays; another of the same step is removed."""
        place = f"{self._stored.place(name)}/{COPYING}"
        mark = orjson.dumps({"manifest": orjson.loads(manifest).get("checksum")})
        if name not in self._damaged and get_bytes(place) == mark:
            return
        self._stored.remove(name, self._stored.listed().get(name, []))
        put_bytes(place, mark)
        self._damaged.discard(name)

    def _copy_small(self) -> None:
        begun = time.monotonic()
        tokenizer = [f"tokenizer/{path.name}" for path in self.folder.tokenizer.glob("*") if path.is_file()]
        for name in (*SMALL, *sorted(tokenizer)):
            path = self.folder.path / name
            try:
                status = path.stat()
                mark = (status.st_size, status.st_mtime_ns)
                if self._sizes.get(name) == mark:
                    continue
                content = path.read_bytes()
            except FileNotFoundError:
                continue
            if name.endswith(".jsonl"):
                content = content[: content.rfind(b"\n") + 1]  # the last line may be half written
            put_bytes(f"{self.url}/{name}", content)
            self._sizes[name] = mark
        now = time.monotonic()
        self._next_small = now + max(_SMALL_SECONDS, _SHARE * (now - begun))


class StoreCopies(Observer):
    """Tells the copying thread where the run stands; ends the run after a failed copy if ``on_error`` says so.

    Args:
        copy: on rank 0; None on the others, and without a store.
    """

    def __init__(self, copy: StoreCopy | None, on_error: Literal["stop", "continue"]) -> None:
        self.copy, self.on_error = copy, on_error
        self._started = False

    def start(self, engine: Engine, moment: Moment) -> None:
        """Again: the run went back after bad steps. At a job's start the store may rightly be ahead of the disk."""
        if self.copy is not None and self._started:
            self.copy.remove_beyond(moment.step)
        self._started = True

    def vote(self) -> Vote:
        failed = self.copy is not None and self.copy.error is not None and self.on_error == "stop"
        return Vote.LOOK if failed else Vote.NOTHING

    def settled(self, engine: Engine, moment: Moment, steps: Sequence[Done]) -> None:
        if self.on_error != "stop" or Vote.LOOK not in moment.agreed:
            return
        errors = gather_objects(None if self.copy is None else self.copy.error, engine.groups.world)
        if any(errors):
            with reported_once(engine.groups.first):
                raise UserError(
                    f"checkpoint.store: {next(filter(None, errors))}. The checkpoints on the disk are whole; "
                    "with checkpoint.store_on_error=continue the run continues without copies"
                )
