"""Files that grow line by line beside a run, and outlive a disk that is full for a while."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("megarc")

_MOST_KEPT = 100_000


class Lines:
    """Appends whole lines: a line that did not fit leaves nothing behind.

    Args:
        patient: where the disk refuses, keeps the lines in memory and tries again with the next one, instead
            of raising.
    """

    def __init__(self, path: Path, *, patient: bool) -> None:
        self.path, self.patient = path, patient
        self._file = path.open("ab", buffering=0)
        self._kept: list[bytes] = []

    def add(self, line: bytes) -> None:
        """One line, without its end."""
        self._kept.append(line + b"\n")
        end = os.fstat(self._file.fileno()).st_size
        text = b"".join(self._kept)
        try:
            if self._file.write(text) != len(text):
                raise OSError(f"{self.path}: no more room")
            self._kept.clear()
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), end)
            if not self.patient:
                raise
            if len(self._kept) == 1:
                log.warning(
                    "%s cannot be written (%s): its lines are kept in memory until it can be written",
                    self.path,
                    error,
                )
            del self._kept[:-_MOST_KEPT]

    def close(self) -> None:
        self._file.close()


class LogFile(logging.FileHandler):
    """A log that cannot be written is reported once, and never ends a run."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._reported = False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self._reported:
            self._reported = True
            print(f"{self.baseFilename} cannot be written: {sys.exc_info()[1]}", file=sys.stderr)

    def close(self) -> None:
        with suppress(OSError):
            super().close()
