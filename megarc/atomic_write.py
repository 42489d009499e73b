"""Files that are there whole or not at all: written beside, synced, renamed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from megarc.errors import UserError


@contextmanager
def written_atomically(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes its name only when the block has ended without an error."""
    partial = open_partial(path)
    try:
        yield partial
        sync(partial)
    except BaseException as error:
        discard(partial)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise
    publish(partial, path)


def open_partial(path: Path) -> BinaryIO:
    """Opens ``PATH.partial``, which a killed writer may leave behind and the next one overwrites.

    Raises:
        UserError: where ``path`` is a folder, or its folder cannot be written to.
    """
    if path.is_dir():  # known only when the file takes its name otherwise, after all the work
        raise UserError(f"could not write {path}: it is a folder; give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return Path(f"{path}.partial").open("wb")
    except OSError as error:
        raise cannot_write(path, error) from error


def sync(file: BinaryIO) -> None:
    """Everything written so far is on the disk, not only in memory."""
    file.flush()
    os.fsync(file.fileno())


def publish(partial: BinaryIO, path: Path) -> None:
    """A synced partial file takes its name."""
    partial.close()
    Path(partial.name).replace(path)
    sync_folder(path.parent)


def discard(partial: BinaryIO) -> None:
    """Closes and removes a partial file, whatever its state: a full disk must not hide the first error."""
    try:
        partial.close()
    except OSError:
        pass
    finally:
        Path(partial.name).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes renames in ``folder`` survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cannot_write(path: Path, error: OSError) -> UserError:
    """An OSError in the user's words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"the disk is full: could not write {path}; what was whole before is still whole. "
            "Free some space (or name another place) and run the same command again"
        )
    if error.errno == errno.EFBIG:
        return UserError(
            f"could not write {path}: the file would exceed this process's size limit (ulimit -f)"
        )
    return UserError(f"could not write {path}: {error.strerror or error}")
