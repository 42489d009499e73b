"""``run`` and ``start``: subprocess's, but Python's scripts start from a fork server (fork_server.py) where they may.

They may where the environment differs from the tests' own in nothing that is read while modules are imported. A test
of the start itself says ``cold=True``; with MEGARC_COLD_TESTS=1 in the environment every start is one.
"""

from __future__ import annotations

import atexit
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, CompletedProcess, TimeoutExpired
from tempfile import TemporaryFile

COLD = os.environ.get("MEGARC_COLD_TESTS") == "1"

# Read when they are used, so they may change after the imports.
_FREE = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_", "MEGARC_", "SLURM_", "OMPI_", "PYTEST_", "PATH",
    "HOME", "TMPDIR", "COLUMNS", "OMP_NUM_THREADS", "AWS_",
)  # fmt: skip


_STREAMS = ("stdout", "stderr")


def run(
    command, *, cold=False, timeout=None, capture_output=False, check=False, text=False, input=None, **how
):
    """``subprocess.run``."""
    command = [str(word) for word in command]
    if capture_output:
        how |= {"stdout": PIPE, "stderr": PIPE}
    if cold or not _may_fork(command, how.get("env")):
        return subprocess.run(command, timeout=timeout, check=check, text=text, input=input, **how)
    with ExitStack() as stack:
        files = {name: stack.enter_context(TemporaryFile()) for name in _STREAMS if how.get(name) == PIPE}
        if input is not None:
            files["stdin"] = stack.enter_context(TemporaryFile())
            files["stdin"].write(input.encode() if text else input)
            files["stdin"].seek(0)
        process = Process(command, **{**how, **files})
        try:
            code = process.wait(timeout)
        except BaseException:
            process.kill()
            raise
        done = CompletedProcess(command, code, *(_content(files.get(name), text) for name in _STREAMS))
    if check:
        done.check_returncode()
    return done


def start(command, *, cold=False, **how):
    """``subprocess.Popen``, or a ``Process``."""
    command = [str(word) for word in command]
    kind = subprocess.Popen if cold or not _may_fork(command, how.get("env")) else Process
    return kind(command, **how)


class Process:
    """What the tests use of ``subprocess.Popen``; its parent is the fork server."""

    def __init__(
        self, command, *, env=None, cwd=None, stdin=None, stdout=None, stderr=None, text=False,
        start_new_session=False,
    ):  # fmt: skip
        self.args, self.returncode = command, None
        self.stdout, output = _opened(stdout, 1, text)
        self.stderr, error = (None, os.dup(output)) if stderr == STDOUT else _opened(stderr, 2, text)
        self._pipe, theirs = os.pipe()
        read = os.dup(stdin.fileno()) if stdin else os.open(os.devnull, os.O_RDONLY)
        request = {
            "command": command[1:],
            "environment": {"OMP_NUM_THREADS": "1", **(os.environ if env is None else env)},
            "folder": str(cwd or Path.cwd()),
            "session": start_new_session,
        }
        given = [read, output, error, theirs]
        _server().request(json.dumps(request).encode(), given)
        for one in given:
            os.close(one)
        self._said = b""
        while b" " not in self._said:
            assert self._read(), "the fork server has ended"
        self.pid = int(self._said.split(b" ")[0])

    def _read(self):
        part = os.read(self._pipe, 64)
        self._said += part
        return part

    def poll(self):
        return self._ended(0)

    def wait(self, timeout=None):
        if self._ended(timeout) is None:
            raise TimeoutExpired(self.args, timeout)
        return self.returncode

    def _ended(self, timeout):
        if self.returncode is None and select.select([self._pipe], [], [], timeout)[0]:
            while self._read():
                pass
            os.close(self._pipe)
            _, code, seconds = self._said.split(b" ")
            self.returncode = int(code)
            _forked.seconds += float(seconds)
        return self.returncode

    def communicate(self, timeout=None):
        """What it says from now on, to its end."""
        end = None if timeout is None else time.monotonic() + timeout
        said = [_Reader(file) for file in (self.stdout, self.stderr)]
        for reader in said:
            reader.join(None if end is None else max(0.0, end - time.monotonic()))
        self.wait(None if end is None else max(0.0, end - time.monotonic()))
        return tuple(reader.said for reader in said)

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        self.send_signal(signal.SIGTERM)


@dataclass
class _Forked:
    seconds: float = 0.0


_forked = _Forked()


def cpu_seconds():
    """Of this process and of all that it started and that have ended."""
    own, theirs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + theirs.ru_utime + theirs.ru_stime + _forked.seconds


class _Reader(threading.Thread):
    def __init__(self, file):
        super().__init__(daemon=True)
        self.file, self.said = file, None
        self.start()

    def run(self):
        if self.file is not None:
            self.said = self.file.read()


class _Server:
    def __init__(self):
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("fork_server.py")), str(theirs.fileno())],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                pass_fds=[theirs.fileno()],
                stdin=DEVNULL,
                stdout=DEVNULL,
            )

        atexit.register(self.close)

    def close(self):
        self._control.close()
        self._process.wait()

    def request(self, message, descriptors):
        with self._lock:
            socket.send_fds(self._control, [message], descriptors)


@cache
def _server():
    """One for each process of pytest; it ends when that ends."""
    return _Server()


def _may_fork(command, environment):
    if COLD or command[0] != sys.executable or not command[1].endswith(".py"):
        return False
    if environment is None:
        return True
    names = {name for name in {*environment, *os.environ} if environment.get(name) != os.environ.get(name)}
    return all(name.startswith(_FREE) for name in names)


def _opened(how, own, text):
    """Our end of a pipe or None, and the descriptor for the program."""
    if how == PIPE:
        ours, theirs = os.pipe()
        return os.fdopen(ours, "r" if text else "rb"), theirs
    if how is None:
        return None, os.dup(own)
    if how == DEVNULL:
        return None, os.open(os.devnull, os.O_WRONLY)
    return None, os.dup(how if isinstance(how, int) else how.fileno())


def _content(file, text):
    if file is None:
        return None
    file.seek(0)
    said = file.read()
    return said.decode() if text else said
