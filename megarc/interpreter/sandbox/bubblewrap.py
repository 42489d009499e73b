"""The walls: bubblewrap's namespaces and mounts, resource limits set inside of them.

    setpriv (root only: to a user without rights)  ->  bwrap (namespaces, mounts)  ->  prlimit  ->  the program

Limits are set inside the user namespace: there the kernel (Linux 5.14 and later) counts processes for each
sandbox by itself, so that neighbours under the same user do not take from each other. Where they are set
outside, they count together, and for root not at all.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from megarc.errors import UserError
from megarc.interpreter.sandbox.limits import Limits
from megarc.interpreter.sandbox.process import Process
from megarc.interpreter.sandbox.program import Program
from megarc.interpreter.sandbox.self_test import TRIAL, verdict

_NOBODY = "61001"  # any number without an account: what root becomes before it starts anything
_SHARED_MEMORY = 16 << 20
_NEEDED = {"bwrap": "bubblewrap", "prlimit": "util-linux", "setpriv": "util-linux"}

log = logging.getLogger("megarc")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Starts programs under ``limits``; made by ``open_sandbox``.

    Attributes:
        enclosed: False: only resource limits and a clean environment, by the user's own wish.
    """

    limits: Limits
    enclosed: bool = True

    def start(self, program: Program, limits: Limits | None = None) -> Process:
        """The program, running; whoever starts it stops it, in the same thread.

        The kernel ends it together with the *thread* that started it, so a killed host leaves nothing.

        Raises:
            StartError: where it cannot be started.
        """
        limits = limits or self.limits
        if self.enclosed:
            return Process(enclosed(program, limits), program.merged, limits)
        folder = tempfile.mkdtemp(prefix="megarc-unenclosed-")
        return Process(unenclosed(program, limits, folder), program.merged, limits, folder)


def open_sandbox(
    limits: Limits | None = None, *, without: bool = False, warn: Callable[[str], None] = log.warning
) -> Sandbox:
    """A sandbox that was tried on this machine.

    Args:
        without: run programs unenclosed where the machine cannot enclose them; said loudly.

    Raises:
        UserError: where the machine cannot enclose a program, and why.
    """
    limits = limits or Limits()
    problem = _problem(limits)
    if problem is None:
        return Sandbox(limits)
    if not without:
        raise UserError(
            f"there is no sandbox on this machine: {problem}. Code from a corpus or a model is not run without one. "
            "Install bubblewrap (Debian: apt-get install bubblewrap) and allow user namespaces; or, on a machine "
            "that holds nothing of value, pass --no-sandbox"
        )
    warn(
        f"NO SANDBOX ({problem}): code from the corpus or the model runs with all that you may do: "
        "your files, your network, your processes"
    )
    return Sandbox(limits, enclosed=False)


def _problem(limits: Limits) -> str | None:
    """Why programs cannot be enclosed here; None where they can."""
    missing = [f"{tool} (package {package})" for tool, package in _NEEDED.items() if not _tool(tool)]
    if missing:
        return f"it lacks {', '.join(missing)}"
    return verdict(Sandbox(limits).start(TRIAL), limits)


def enclosed(program: Program, limits: Limits) -> list[str]:
    """The command that runs ``program`` within walls."""
    walls = [_tool("bwrap") or "bwrap", "--unshare-all", "--unshare-user", "--disable-userns"]
    walls += ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--hostname", program.hostname]
    walls += ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib64"):
        if os.path.islink(f"/{name}"):  # noqa: PTH114 - a link to /usr on merged systems, a folder on others
            walls += ["--symlink", f"usr/{name}", f"/{name}"]
        elif os.path.isdir(f"/{name}"):  # noqa: PTH112
            walls += ["--ro-bind", f"/{name}", f"/{name}"]
    walls += ["--proc", "/proc", "--dev", "/dev", "--size", str(_SHARED_MEMORY), "--tmpfs", "/dev/shm"]
    walls += ["--size", str(limits.disk_bytes), "--tmpfs", "/tmp"]
    for outside, inside in program.read_only:  # behind /tmp, under which a folder may lie
        walls += ["--ro-bind", outside, inside]
    walls += ["--chdir", "/tmp"]
    # bubblewrap's / and /dev are in memory and without a size: closed once all mounts stand.
    walls += ["--remount-ro", "/dev", "--remount-ro", "/", "--clearenv"]
    for name, value in {"PATH": "/usr/bin:/bin", "HOME": "/tmp", **program.environment}.items():
        walls += ["--setenv", name, value]
    dropped = [_tool("setpriv") or "setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
    before = [*dropped, "--no-new-privs", "--"] if os.geteuid() == 0 else []
    # The empty environment is bwrap's too: /proc/1/environ shows it inside.
    return ["/usr/bin/env", "-i", *before, *walls, "--", *_limited(limits), *program.command]


def unenclosed(program: Program, limits: Limits, folder: str) -> list[str]:
    """The command that runs ``program`` with resource limits only, in a folder of its own."""
    inside = {inside: outside for outside, inside in program.read_only}
    command = [inside.get(part, part) for part in program.command]
    environment = {"PATH": "/usr/bin:/bin", "HOME": folder, **program.environment}
    assigned = [f"{name}={value}" for name, value in environment.items()]
    return ["/usr/bin/env", "-i", f"--chdir={folder}", *assigned, *_limited(limits), *command]


def _limited(limits: Limits) -> list[str]:
    cpu = limits.cpu_seconds
    return [
        "/usr/bin/prlimit", f"--cpu={cpu}:{cpu}", f"--as={limits.memory}", f"--nproc={limits.processes}",
        f"--fsize={limits.file_bytes}", f"--nofile={limits.open_files}", "--core=0", "--",
    ]  # fmt: skip


def _tool(name: str) -> str | None:
    return shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/usr/local/bin")
