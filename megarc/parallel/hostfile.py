"""A hostfile, and what its hosts say when they are asked before a run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megarc.errors import UserError, shortened
from megarc.parallel.rank_check import CLOCK_SECONDS

# As deepspeed takes it: what follows the slots (max_slots=8, a comment) does not matter.
_ENTRY = re.compile(r"(\S+)\s+slots=(\d+)(?:\s+\w+=\S+)*\s*(?:#.*)?$")
_ANSWER = "megarc's answer: "  # a login shell may print before it and after it
_PROBE = f"""
import json, socket, time, torch
from megarc.parallel.rank_check import code_digest
name = socket.gethostname()
try:
    addresses = [entry[4][0] for entry in socket.getaddrinfo(name, None)]  # IPv4 or IPv6
except OSError:
    addresses = []
print("\\n" + {_ANSWER!r} + json.dumps(dict(
    name=name, addresses=addresses, gpus=torch.cuda.device_count(),
    torch=torch.__version__, code=code_digest(), time=time.time())))
"""
_LOOPBACK = ("127.", "::1")


@dataclass(frozen=True, slots=True)
class Host:
    """A host of the file, what it said, and what is wrong with it."""

    name: str
    slots: int
    facts: dict[str, Any]
    problems: tuple[str, ...]


def read_hostfile(path: Path) -> dict[str, int]:
    """Slots by host, in the file's order.

    Raises:
        UserError: for a file that is absent or empty, a line that is no entry, a host that stands twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"the hostfile {path} cannot be read: {error}; deepspeed would only warn and train here alone"
        ) from None
    hosts: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        found = _ENTRY.match(text)
        if not found or int(found[2]) == 0:
            raise UserError(f"{path}, line {number}: {text!r} is not a valid entry; write: node-1 slots=8")
        if found[1] in hosts:
            raise UserError(
                f"{path}, line {number}: {found[1]} is listed twice; list it once with all its slots"
            )
        hosts[found[1]] = int(found[2])
    if not hosts:
        raise UserError(f"the hostfile {path} names no host; write a line for each: node-1 slots=8")
    return hosts


def ask_hosts(hosts: dict[str, int], seconds: float = 60.0) -> list[Host]:
    """Asks all hosts at once, by ssh: are they there, with this folder, this Python and code, and their GPUs?"""
    with ThreadPoolExecutor(max_workers=64) as pool:
        answers = list(pool.map(lambda host: _ask(host, seconds), hosts))
    codes = [answer["code"] for answer in answers if "code" in answer]
    common = max(set(codes), key=codes.count) if codes else None
    return [
        Host(name, slots, answer, tuple(_problems(name, slots, answer, common, len(hosts))))
        for (name, slots), answer in zip(hosts.items(), answers, strict=True)
    ]


def _ask(host: str, seconds: float) -> dict[str, Any]:
    remote = f"cd {shlex.quote(str(Path.cwd()))} && {shlex.quote(sys.executable)} -c {shlex.quote(_PROBE)}"
    command = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", host, remote]
    sent = time.time()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except FileNotFoundError:
        raise UserError("there is no ssh here; install it (openssh-client)") from None
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {seconds:.0f} s"}
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"ssh ended with {done.returncode}"]
        return {"error": shortened(lines[-1], 300)}
    # Its clock was read at some moment between sending and now.
    lines = [line for line in done.stdout.splitlines() if line.startswith(_ANSWER)]
    if not lines:
        return {"error": f"no answer; it printed: {done.stdout.strip()[:100] or 'nothing'}"}
    answer = json.loads(lines[-1].removeprefix(_ANSWER))
    return {**answer, "clock": answer["time"] - min(max(answer["time"], sent), time.time())}


def _problems(name: str, slots: int, answer: dict[str, Any], code: str | None, hosts: int) -> Sequence[str]:
    if "error" in answer:
        return [answer["error"]]
    found = []
    if answer["gpus"] and answer["gpus"] != slots:
        found.append(f"slots={slots}, but it has {answer['gpus']} GPUs")
    if answer["code"] != code:
        found.append("its copy of megarc differs from the others'")
    if hosts > 1 and all(address.startswith(_LOOPBACK) for address in answer["addresses"]):
        means = answer["addresses"][0] if answer["addresses"] else "nothing"
        found.append(
            f"its name {answer['name']} means {means} there, so other hosts cannot reach it; correct /etc/hosts"
        )
    if abs(answer["clock"]) > CLOCK_SECONDS:
        found.append(f"its clock is {answer['clock']:+.0f} s off this host's")
    return found
