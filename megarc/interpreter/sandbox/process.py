"""One enclosed program: asked, heard, ended.

It is read as fast as it writes but only up to a limit, so a flood costs the host one buffer. Nothing here waits for
the program's good will: at a limit it is killed, and with it, by its namespace, whatever it has started.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import psutil

from megarc.interpreter.sandbox.limits import Limits

_PIECE = 1 << 16
_SECONDS_BETWEEN_LOOKS = 0.1

End = Literal["answered", "ended", "too long", "too much output", "too much memory"]


class StartError(Exception):
    """A program did not start, and what it said."""


@dataclass(slots=True)
class Heard:
    """What came back for one request.

    Attributes:
        output: standard output, with standard error where the two are merged.
        control: standard error otherwise.
        end: ``answered``, and the program goes on; anything else, and it is gone.
    """

    output: bytearray = field(default_factory=bytearray)
    control: bytearray = field(default_factory=bytearray)
    end: End = "answered"


class Process:
    """A running command with pipes; for one thread, the one that made it."""

    def __init__(self, command: list[str], merged: bool, limits: Limits, folder: str | None = None) -> None:
        self._limits, self._folder = limits, folder
        error = subprocess.STDOUT if merged else subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=error, bufsize=0,
                start_new_session=True,
            )  # fmt: skip
        except OSError as problem:
            raise StartError(f"cannot start {command[0]}: {problem.strerror}") from None
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)

    def exchange(self, request: bytes, answered: Callable[[Heard], bool], seconds: float) -> Heard:
        """Sends ``request`` and listens until ``answered`` says that the answer is whole, or a limit is met.

        ``answered`` is asked after each read. An empty request only listens.
        """
        heard = Heard()
        with selectors.DefaultSelector() as selector:
            self._register(selector, bool(request))
            waiting = memoryview(request)
            deadline = time.monotonic() + seconds
            look = time.monotonic() + _SECONDS_BETWEEN_LOOKS
            while not answered(heard):
                now = time.monotonic()
                if now >= deadline:
                    return self._over(heard, "too long")
                if now >= look:
                    look = now + _SECONDS_BETWEEN_LOOKS
                    if self._resident() > self._limits.tree_memory:
                        return self._over(heard, "too much memory")
                for ready, _ in selector.select(min(deadline, look) - now):
                    if ready.data == "in":
                        waiting = self._send(selector, waiting)
                    elif not self._receive(ready.fd, getattr(heard, ready.data)):
                        selector.unregister(ready.fileobj)
                if len(heard.output) + len(heard.control) > self._limits.output_bytes:
                    return self._over(heard, "too much output")
                if not any(entry.data != "in" for entry in selector.get_map().values()):
                    return self._over(heard, "ended")
            self._drain(heard)
        return heard

    def stop(self) -> None:
        """Ends the program and all that it has started; again is no harm."""
        process = self._process
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _register(self, selector: selectors.BaseSelector, sends: bool) -> None:
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        selector.register(process.stdout, selectors.EVENT_READ, "output")
        if process.stderr is not None:
            selector.register(process.stderr, selectors.EVENT_READ, "control")
        if sends:
            selector.register(process.stdin, selectors.EVENT_WRITE, "in")

    def _send(self, selector: selectors.BaseSelector, waiting: memoryview) -> memoryview:
        """What is still to be sent; a program that closed its input hears no more."""
        assert self._process.stdin is not None
        try:
            waiting = waiting[os.write(self._process.stdin.fileno(), waiting[:_PIECE]) :]
        except BlockingIOError:
            return waiting
        except OSError:
            waiting = memoryview(b"")
        if not waiting:
            selector.unregister(self._process.stdin)
        return waiting

    def _receive(self, pipe: int, into: bytearray) -> bool:
        """Reads once; False at the end."""
        try:
            read = os.read(pipe, _PIECE)
        except BlockingIOError:
            return True
        into += read
        return bool(read)

    def _drain(self, heard: Heard) -> None:
        """What was written before the answer lies in the pipe by now."""
        assert self._process.stdout is not None
        while len(heard.output) <= self._limits.output_bytes:
            before = len(heard.output)
            self._receive(self._process.stdout.fileno(), heard.output)
            if len(heard.output) == before:
                return

    def _over(self, heard: Heard, end: End) -> Heard:
        self.stop()
        heard.end = end
        del heard.output[self._limits.output_bytes :]
        return heard

    def _resident(self) -> int:
        """Bytes of memory that the program and its children hold by themselves."""
        total = 0
        with contextlib.suppress(psutil.Error):
            for one in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    memory = one.memory_info()
                    total += memory.rss - memory.shared
        return total
