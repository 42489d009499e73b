"""The last words of a run: how it ended, where its newest checkpoint is, what to do next."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from megarc.train.checkpoint import layout
from megarc.train.config import RunConfig
from megarc.train.folder import RunFolder
from megarc.train.loop import Ending

log = logging.getLogger("megarc")


def how_it_ended(ending: Ending, config: RunConfig, total: int) -> str:
    """The last line of a run that finished or was saved before its end, at ``total`` steps."""
    newest = _newest(RunFolder(config.folder))
    step = f"step {layout.step_of(newest) if newest else 0} of {total}"
    if ending is Ending.SAVED:
        return f"stopped and saved at {step}: {newest}; next: the same command resumes from there"
    held_out = config.data.valid or config.data.train
    corpus = next(
        (source.path for source in held_out if source.path is not None and source.kind != "text"), "CORPUS"
    )
    command = f"python launch/evaluate.py --run {config.folder} --corpus {corpus}"
    return f"finished at {step}: {newest}; next: {command}"


@contextmanager
def failure_logged(folder: RunFolder, where: Callable[[], str]) -> Iterator[None]:
    """Where the block fails: a line that says where that was and from which checkpoint the same command goes on."""
    try:
        yield
    except BaseException:
        newest = _newest(folder)
        next_time = (
            f"resumes from {newest}" if newest else "starts from the beginning: there is no checkpoint yet"
        )
        log.error(f"failed at {where()}; once the cause is fixed, the same command {next_time}")
        raise


def _newest(folder: RunFolder) -> Path | None:
    found = layout.finished(folder.checkpoints)
    return found[-1] if found else None
