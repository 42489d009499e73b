"""Starts Python programs by fork, from a process that has imported torch and DeepSpeed already.

    python fork_server.py FD        FD: this end of a socket pair, see processes.py

Importing them takes seconds, and the tests start hundreds of processes. A forked one is a process like any other: it
has its own memory, threads, file descriptors, signals and exit code. The server itself never computes, so that no
thread and no lock is there to be copied. A forked one ends without taking the interpreter apart: that would visit all
objects of the imports and cost .4 CPU-seconds each time.

A request is JSON: command (a script and its arguments), environment, folder, session; and four file descriptors:
standard input, output, error, and a pipe to which the server writes the process's number and, at its end, its exit
code and CPU-seconds.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import weakref
from pathlib import Path

LIMIT = 1 << 20  # bytes of a request

MODULES = (
    *("torch._dynamo", "torch.utils.tensorboard", "matplotlib.pyplot", "matplotlib.backends.backend_agg"),
    "deepspeed.module_inject.auto_ep_layer",  # its engines ask whether a layer is one
    *(
        "megarc.batchsize",
        "megarc.command",
        "megarc.data",
        "megarc.inference",
        "megarc.plan",
        "megarc.report",
    ),
    *("megarc.science", "megarc.train.run", "megarc.train.startup"),
    # These two rooms open when they are used.
    *("megarc.plan.memory_advice", "megarc.plan.memory_tracking", "megarc.tiers.controls"),
)


def preload() -> None:
    from megarc.train.engine.deepspeed_import import import_deepspeed

    import_deepspeed(importlib.import_module("torch").device("cpu"))
    for name in MODULES:
        importlib.import_module(name)
    for one in list(weakref.finalize._registry):  # of torch's operators, which end with the process anyway
        one.atexit = False
    gc.collect()
    gc.freeze()  # pages with these objects stay shared


def serve(control: socket.socket) -> dict:
    """Answers requests until the tests have ended, and ends what is left; returns in each forked process."""
    running: dict[int, int] = {}  # process -> pipe
    waker, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    while True:
        ready, _, _ = select.select([control, waker], [], [])
        if waker in ready:
            os.read(waker, 4096)
            report_ended(running)
        if control not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(control, LIMIT, 4)
        if not message:
            for one in running:  # whoever started them is gone, however it ended
                os.kill(one, signal.SIGKILL)
            sys.exit(0)
        child = os.fork()
        if child == 0:
            signal.set_wakeup_fd(-1)
            control.close()
            take_descriptors(descriptors, [waker, wakes, *running.values()])
            return json.loads(message)
        for one in descriptors[:3]:
            os.close(one)
        running[child] = descriptors[3]
        os.write(descriptors[3], f"{child} ".encode())


def report_ended(running: dict[int, int]) -> None:
    for process in list(running):
        ended, status, used = os.wait4(process, os.WNOHANG)
        if ended:
            pipe = running.pop(process)
            with contextlib.suppress(BrokenPipeError):  # nobody waits for it
                code, seconds = os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
                os.write(pipe, f"{code} {seconds}".encode())
            os.close(pipe)


def take_descriptors(descriptors: list[int], others: list[int]) -> None:
    for target, given in enumerate(descriptors[:3]):
        os.dup2(given, target)
    for one in (*descriptors, *others):
        os.close(one)


def become(request: dict) -> None:
    """Runs the program as Python runs it, in this process."""
    for name in (signal.SIGINT, signal.SIGCHLD):
        signal.signal(name, signal.default_int_handler if name == signal.SIGINT else signal.SIG_DFL)
    if request["session"]:
        os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    import numpy

    numpy.random.seed()  # each process has its own, as after a start
    program, *sys.argv = request["command"]
    sys.argv = [program, *sys.argv]
    sys.path[0] = str(Path(program).resolve().parent)
    end(exit_code_of(program))


def exit_code_of(program: str) -> int:
    """Runs it; what Python would say at its end goes to standard error."""
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as ending:
        if ending.code is None or isinstance(ending.code, int):
            return ending.code or 0
        print(ending.code, file=sys.stderr)
        return 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


def end(code: int) -> None:
    """What Python does before it takes the interpreter apart, and no more."""
    threading._shutdown()  # waits for threads that are no daemons
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except OSError:  # nobody reads it
            code = code or 120
    ctypes.CDLL(None).fflush(None)
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF)


if __name__ == "__main__":
    link = socket.socket(fileno=int(sys.argv[1]))
    preload()
    become(serve(link))
