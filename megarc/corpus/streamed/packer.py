"""Packs one section after the other, in a process of its own: ``python -m megarc.corpus.streamed``.

Its standard input says what; the lock of the folder is inherited from whoever started it, and ends with it and its
workers. It does not outlive the process that started it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from megarc.config import build, to_dict
from megarc.corpus.packing.bad_lines import check_early
from megarc.corpus.packing.pack_piece import Job, News, pack_piece
from megarc.corpus.packing.workers import share_out
from megarc.corpus.streamed.folder import SectionFolder
from megarc.corpus.streamed.sections import Text, TextRequest
from megarc.corpus.tokenizer import EngineError, with_fast_engine
from megarc.errors import UserError

_MOST_MEGABYTES = 240  # resident, of a worker, before another takes its place
_NICENESS = 5  # the trainer comes first
_PARENT_SECONDS = 1.0
UNTOLD = 3  # exit code: it could not go on, nor write why


def hire(request: TextRequest, folder: Path, lock: BinaryIO, workers: int) -> subprocess.Popen[bytes]:
    """Starts the packer, which takes over ``lock``."""
    command = [sys.executable, "-m", "megarc.corpus.streamed"]
    # Numpy's linear algebra would start a thread a core, and packing never calls it.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, pass_fds=(lock.fileno(),), env=environment, close_fds=True
    )
    task = {"request": to_dict(request), "folder": str(folder), "workers": workers, "boss": os.getpid()}
    assert process.stdin is not None
    try:
        process.stdin.write(orjson.dumps(task, default=str))
        process.stdin.close()
    except BrokenPipeError:
        pass  # it is gone already; who waits for a section finds out
    return process


def main() -> int:
    """The packer's process: 0 when all is packed, 2 when ``failed.json`` says why it is not, else ``UNTOLD``."""
    task: dict[str, Any] = orjson.loads(sys.stdin.buffer.read())
    threading.Thread(target=_end_with, args=(task["boss"],), daemon=True).start()
    os.nice(_NICENESS)
    folder = SectionFolder(Path(task["folder"]))
    try:
        text = Text.of(build(TextRequest, task["request"], "the packer's task"))
        pack_sections(text, folder, task["workers"])
    except EngineError as error:
        folder.drop()
        return _failed(folder, UserError(f"{error}; {dropped(folder)}"))
    except UserError as error:
        return _failed(folder, error)
    return 0


def dropped(folder: SectionFolder) -> str:
    """What a run does whose sections the fast engine packed, before it gave other ids."""
    return (
        "the sections that were packed with the fast engine are not used any more. Run the same command again: it "
        f"packs them with the plain library and resumes from the newest checkpoint. When no run reads {folder.path}, "
        "remove it"
    )


def _failed(folder: SectionFolder, error: UserError) -> int:
    """Tells the readers; on standard error where the disk has no room for that either."""
    try:
        folder.record_failure(error)
    except UserError:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return UNTOLD
    return 2


def pack_sections(text: Text, folder: SectionFolder, workers: int) -> None:
    """Every section that is not whole yet, in order.

    Raises:
        UserError: for input that cannot be read, has changed, or is bad in most lines; a full disk; a dead worker.
    """
    todo = [number for number in range(len(text.sections)) if not folder.is_whole(number)]
    if not todo:
        return
    tokenizer = text.tokenizer
    if not folder.plain:
        tokenizer = with_fast_engine(tokenizer, lambda line: None)
    job = text.job(folder.path, tokenizer)
    lines = rejects = 0

    def heard(news: News) -> None:
        nonlocal lines, rejects
        lines, rejects = lines + news.lines, rejects + news.rejects
        check_early(rejects, lines, text.request.max_bad, "is data.train's key text right?")

    share_out(
        lambda number, tell: pack_section(job, number, tell),
        todo,
        min(workers, len(todo)),
        heard,
        job.describe,
        most_megabytes=_MOST_MEGABYTES,
    )


def pack_section(job: Job, number: int, tell: Any = lambda news: None) -> None:
    """One section; its inputs must be those that were planned with."""
    _check_unchanged(job, number)
    pack_piece(job, number, tell)


def _check_unchanged(job: Job, number: int) -> None:
    for file in {span.input: job.inputs[span.input] for span in job.pieces[number]}.values():
        try:
            status = file.path.stat()
        except OSError as error:
            raise UserError(f"{file.name} cannot be read any more: {error.strerror}") from None
        if (status.st_size, status.st_mtime_ns) != (file.bytes, file.modified):
            raise UserError(
                f"{file.name} has changed since the run began, so its samples would be others; put the file back, or "
                "start a new run"
            )


def _end_with(boss: int) -> None:
    while os.getppid() == boss:
        time.sleep(_PARENT_SECONDS)
    os._exit(1)  # its workers end with it
