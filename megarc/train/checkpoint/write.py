"""What a thread does while training goes on: this rank's files, then, by one rank, the manifest."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from megarc.atomic_write import written_atomically
from megarc.train.checkpoint import layout
from megarc.train.checkpoint.storage_level import Level
from megarc.train.checkpoint.tensor_file import FileImage

log = logging.getLogger("megarc")

_SECONDS_FOR_SLOWEST_RANK = 1800.0


@dataclass
class Writing:
    """One save under way: its place, its thread, whether this rank's files are done, what went wrong."""

    folder: Path
    level: Level
    spared: tuple[int, ...] = ()  # steps that stay on the level, beside those that it keeps itself
    thread: threading.Thread = field(default_factory=threading.Thread)
    own_files_done: threading.Event = field(default_factory=threading.Event)
    given_up: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None
    begun: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class State:
    """What is written: this rank's files and where the fragments of each lie, and what the manifest says."""

    rank: int
    files: list[tuple[FileImage, list[dict[str, Any]]]]
    standing: layout.Standing
    facts: dict[str, Any]


def write(writing: Writing, state: State, passing: Callable[[str], None]) -> None:
    """Writes; errors lie in ``writing.error`` for the main thread. ``passing`` is called at the points passed."""
    try:
        _write_own(writing.folder, state, passing)
    except Exception as error:
        writing.error = error
    writing.own_files_done.set()
    if writing.error is None and writing.level.publisher(state.rank):
        try:
            _publish(writing, state, passing)
        except Exception as error:
            writing.error = error


def _write_own(folder: Path, state: State, passing: Callable[[str], None]) -> None:
    """Files side by side; the JSON of the first comes last, and names the others."""
    names = [layout.rank_name(state.rank, number) for number in range(len(state.files))]
    beside = [folder / f"{name}.safetensors.part" for name in names]
    passing("writing")
    with ThreadPoolExecutor(len(names)) as pool:
        digests = list(pool.map(lambda file, path: file[0].write(path), state.files, beside))
    passing("renaming")
    for number, (image, entries) in reversed(list(enumerate(state.files))):
        tensors = beside[number].with_suffix("")
        beside[number].replace(tensors)
        facts = {
            "tensors": tensors.name,
            "size": image.size,
            "sha256": digests[number],
            "fragments": entries,
            "others": [f"{name}.json" for name in names[1:]] if number == 0 else [],
        }
        with written_atomically(folder / f"{names[number]}.json") as file:
            file.write(orjson.dumps(facts))


def _publish(writing: Writing, state: State, passing: Callable[[str], None]) -> None:
    level, folder = writing.level, writing.folder
    deadline = time.monotonic() + _SECONDS_FOR_SLOWEST_RANK
    missing = [folder / f"{layout.rank_name(rank)}.json" for rank in level.members]
    while missing := [path for path in missing if not path.exists()]:
        if writing.given_up.is_set():
            return  # another rank could not write, and all know it
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {missing[0].name} after {_SECONDS_FOR_SLOWEST_RANK:.0f} s")
        time.sleep(0.02)
    passing("publishing")
    layout.write_manifest(folder, level.members, state.standing, state.facts)
    passing("removing")
    level.prune(state.standing.step, writing.spared)
    log.info(f"step {state.standing.step} is saved: {folder}, in {time.monotonic() - writing.begun:.1f} s")
