"""Faults of many kinds, drawn by lot, for as long as there is time; a run must end equal, or say what is wrong.

    python benchmarks/chaos.py --minutes 60                      goes on where the table stands
    python benchmarks/chaos.py --until 200                       the same, up to so many faults in the table
    python benchmarks/chaos.py --jobs 3                          several runs at once
    python benchmarks/chaos.py --faults 6 --out chaos.json --layouts dp2-z2

A run of 40 steps with a checkpoint every 3 meets `--each` faults one after the other, and is started again after each
as a user would: ranks killed or frozen at any moment, signals, a disk that is full, a byte of a checkpoint or of a
weight that flips, clocks that jump, ranks that are slow, another topology; with root also, between ranks in network
namespaces, a link that is cut or slow, and a run folder that becomes read-only; with SLURM a job that is requeued.
Where a fault must be told, the run has to name it: a frozen rank, the full or read-only disk, the damaged file, the
weight that flipped, the cut link. In the end weights, moments, losses and consumed samples are those of an untouched
run: bit for bit where the topology stayed, otherwise to 1e-4 in the losses. Each finished run is written to
benchmarks/results/chaos.json, and the same command goes on behind it.
"""

from __future__ import annotations

import argparse
import fcntl
import itertools
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from chaos_machine import Around, cannot, own_mounts, read_only
from chaos_slurm import SAME, SLURM, SlurmRuns, without_slurm
from faults import (
    CHANGING,
    EVERY,
    INSIDE,
    LAYOUTS,
    STEPS,
    Layout,
    _import_all,
    aimed,
    compare,
    rewind,
    said,
    start,
)
from options import options
from system.hosts import Hosts

from megarc.errors import UserError, run_script
from megarc.report import table

MACHINE = ("link cut", "slow link", "read-only disk")  # these need root
KINDS = (
    *("kill", "freeze", "signal", "full disk", "disk flip", "memory flip", "clock", "slow", "topology"),
    *(*MACHINE, "requeue"),
)
TWO = [name for name, layout in LAYOUTS.items() if layout.ranks == 2]
SEEN = {
    "requeue": [SLURM],
    "link cut": TWO,
    "slow link": TWO,
    "memory flip": ["dp2-z0", "dp2-z1", "dp2-z2"],  # elsewhere no two ranks hold the same weights
    "freeze": list(LAYOUTS)[1:],  # a rank alone is watched by nobody
    "topology": [CHANGING],
}
"""Layouts on which a kind of fault means something; others: all."""
WATCH = {"health__patience": 15.0, "health__replicas": "1 steps"}
REQUEUES = 2  # of one run: each costs two cold starts
_TRIES = 12  # starts for one fault: it may be drawn behind the run's end


@dataclass
class Played:
    """One run: what befell it, and how that ended."""

    number: int
    layout: str
    met: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    verdict: str = ""


def main() -> int:
    parser = options(__doc__, "chaos.json")
    parser.add_argument("--minutes", type=float, default=60.0, help="no fault comes later (60)")
    parser.add_argument("--faults", type=int, default=1_000_000, help="end after so many")
    parser.add_argument("--until", type=int, default=1_000_000, help="end when the table has so many")
    parser.add_argument("--each", type=int, default=5, help="faults of one run (5)")
    parser.add_argument("--layouts", default=",".join([*TWO, CHANGING, SLURM]), help="by comma")
    parser.add_argument("--kinds", default=",".join(KINDS), help="by comma")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once (1); a run mostly waits")
    parser.add_argument(
        "--untouched", type=Path, help="keep untouched runs in this folder, for the next start"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    listed = json.loads(arguments.out.read_bytes())["runs"] if arguments.out.exists() else []
    arguments.faults = min(arguments.faults, arguments.until - faults_of(listed))
    signal.signal(signal.SIGTERM, _end)
    with tempfile.TemporaryDirectory() as scratch:
        campaign(Path(scratch), arguments, listed)
    print(table(["fault", "met", "drawn behind the end"], by_kind(listed)))
    wrong = [
        f"run {one['number']}, {one['layout']}: {one['verdict']}"
        for one in listed
        if one["verdict"] != "equal"
    ]
    print(f"{faults_of(listed)} faults, {len(listed) - len(wrong)} of {len(listed)} runs equal")
    if wrong:
        raise UserError("\n       ".join(wrong))
    return 0


def _end(*_: object) -> None:
    """Hosts, mounts and SLURM are removed on the way out, which a second signal does not interrupt."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


def campaign(scratch: Path, arguments: argparse.Namespace, listed: list[dict]) -> None:
    """So many runs at once, each in a process of its own; each is written down when it has ended."""
    _import_all()
    end, left = time.monotonic() + 60 * arguments.minutes, arguments.faults
    chosen = possible(arguments.layouts.split(","), arguments.kinds.split(","))
    untouched = arguments.untouched or scratch
    untouched.mkdir(parents=True, exist_ok=True)
    done = {one["number"] for one in listed}
    numbers = (number for number in itertools.count() if number not in done)
    under_way: dict[Future[Played], int] = {}
    with ProcessPoolExecutor(arguments.jobs, get_context("fork")) as pool:
        while True:
            while len(under_way) < arguments.jobs and left > 0 and time.monotonic() < end:
                faults = min(arguments.each, left)
                left -= faults
                run = Run(next(numbers), *chosen, faults, end, arguments.seed, scratch, untouched)
                under_way[pool.submit(run.play)] = faults
            if not under_way:
                return
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                left += under_way.pop(future)
                if problem := future.exception():
                    print(f"a run broke off, and is played at the next start: {problem}", flush=True)
                    continue
                one = future.result()
                left -= one.met.total()
                listed.append(vars(one) | {"met": dict(one.met), "missed": dict(one.missed)})
                listed.sort(key=lambda each: each["number"])
                command = "python benchmarks/chaos.py --minutes M"
                arguments.out.write_text(json.dumps({"command": command, "runs": listed}, indent=1) + "\n")
                print(f"run {one.number}, {one.layout}: {one.verdict}, {dict(one.met)}", flush=True)


@dataclass(frozen=True)
class Run:
    """One of the campaign's runs: its number decides what is drawn for it."""

    number: int
    names: list[str]
    kinds: list[str]
    faults: int
    end: float  # of the monotonic clock: no fault comes later
    seed: int
    scratch: Path
    untouched: Path

    def play(self) -> Played:
        """From its first start to its end, compared with the run that nobody touched."""
        chance = random.Random(f"{self.seed} {self.number}")
        name = self.names[self.number % len(self.names)]
        expected = self._untouched({CHANGING: "one-z0", SLURM: SAME}.get(name, name), chance)
        one, folder = Played(self.number, name), self.scratch / f"run-{self.number}"
        with Machine(bool({*MACHINE} & {*self.kinds})) as machine:
            if name == SLURM:
                requeued(one, folder, min(self.faults, REQUEUES), chance, machine)
            else:
                self._play(one, folder, chance, machine)
        one.verdict = one.verdict or compare(expected, folder, exact=name != CHANGING)
        if one.verdict == "equal":
            shutil.rmtree(folder)
        return one

    def _play(self, one: Played, folder: Path, chance: random.Random, machine: Machine) -> None:
        """So many faults, then to the end; a fault that is not told as it must be is the run's verdict."""
        possible = [kind for kind in self.kinds if one.layout in SEEN.get(kind, [one.layout])]
        chance.shuffle(possible)
        for number in range(self.faults):
            kind = possible[number % len(possible)]  # many kinds in each run
            for _ in range(_TRIES):
                if time.monotonic() > self.end:
                    break
                one.starts += 1
                hit = meet(kind, one, folder, chance, machine)
                if one.verdict:
                    return
                if hit:
                    one.met[kind] += 1
                    break
                one.missed[kind] += 1
                rewind(folder)
        one.starts += 1
        if code := start(_layout(one, chance), folder, None, chance):
            one.verdict = f"the last start ended with {code}: {said(folder)}"

    def _untouched(self, name: str, chance: random.Random) -> Path:
        """Made by the first that needs it; the others wait."""
        folder = self.untouched / name
        with (self.untouched / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if state_of(folder).get("state") != "finished" and start(LAYOUTS[name], folder, None, chance):
                raise UserError(f"the untouched run of {name} failed: {said(folder)}")
        return folder


def possible(names: list[str], kinds: list[str]) -> tuple[list[str], list[str]]:
    """Those of layouts and kinds that this machine can have; the others are named."""
    if {*MACHINE} & {*kinds} and (why := cannot()):
        print(f"without {', '.join(MACHINE)}: {why}")
        kinds = [kind for kind in kinds if kind not in MACHINE]
    if SLURM in names and ("requeue" not in kinds or (why := without_slurm())):
        if "requeue" in kinds:
            print(f"without requeues: {why}")
        names, kinds = [name for name in names if name != SLURM], [one for one in kinds if one != "requeue"]
    return names, kinds


class Machine(ExitStack):
    """Hosts for the ranks and a SLURM, each there from its first use on."""

    def __init__(self, mounts: bool) -> None:
        super().__init__()
        if mounts:
            own_mounts()
        self.slurm = self.enter_context(SlurmRuns())
        self._hosts: Hosts | None = None

    @property
    def hosts(self) -> Hosts:
        if self._hosts is None:
            self._hosts = self.enter_context(Hosts())
        return self._hosts


def requeued(one: Played, folder: Path, faults: int, chance: random.Random, machine: Machine) -> None:
    """A run that SLURM puts back into its queue."""
    one.met["requeue"], one.verdict = machine.slurm.play(folder, faults, chance)
    one.starts = 1 + one.met["requeue"]
    if one.verdict:
        one.verdict += f": {said(folder)}"


def meet(kind: str, one: Played, folder: Path, chance: random.Random, machine: Machine) -> bool:
    """One start with one fault; whether it was met. ``one.verdict`` says what should not be."""
    layout = _layout(one, chance)
    if kind == "disk flip":
        return flip_on_disk(one, layout, folder, chance)
    if kind in MACHINE:
        return outside(kind, one, layout, folder, chance, machine)
    fault = drawn(kind, layout, folder, chance)
    code = start(layout, folder, fault, chance)
    told = told_of(folder)
    if kind in ("clock", "slow", "topology"):
        if code:
            one.verdict = f"{kind}: ended with {code}: {told}"
        return not code
    if code == 0:
        return kind == "signal" and state_of(folder).get("state") == "saved"
    words = {
        "freeze": f"rank {fault['rank']}",
        "full disk": "checkpoint",
        "memory flip": "weights that must be equal differ",
    }
    expected = code == signal.SIGKILL if kind == "kill" else words.get(kind, "?") in told
    if not expected:
        one.verdict = f"{kind} ({fault}): ended with {code}, and said: {told}"
    return True


def outside(
    kind: str, one: Played, layout: Layout, folder: Path, chance: random.Random, machine: Machine
) -> bool:
    """One start, during which something happens to the machine; whether it still found the run at work."""
    step = min(STEPS - 1, stands(folder) + chance.randint(1, 2 * EVERY + 2))
    with ExitStack() as stack:
        if kind == "read-only disk":
            around = Around(folder, step, stack.enter_context(read_only(folder)))
        elif kind == "link cut":
            cut = partial(machine.hosts.link, chance.randrange(2))
            around = Around(folder, step, partial(cut, "down"), machine.hosts)
            stack.callback(cut, "up")
        else:
            host, rate = chance.randrange(2), f"{chance.choice((4, 16))}mbit"
            around = Around(folder, step, partial(machine.hosts.slow_down, host, rate), machine.hosts)
            stack.callback(lambda: around.struck and machine.hosts.full_speed(host))
        code = start(layout, folder, None, chance, around)
    told = told_of(folder)
    named = {"link cut": "a link", "read-only disk": "Read-only file system", "slow link": ""}[kind]
    if bool(code) == (kind == "slow link") or (code and named not in told):
        if code or (around.struck and kind == "read-only disk"):
            one.verdict = f"{kind}: ended with {code}, and said: {told}"
        return False
    return around.struck


def stands(folder: Path) -> int:
    """The step of the newest checkpoint."""
    return max((int(path.name[5:]) for path in folder.glob("checkpoints/step-*")), default=0)


def state_of(folder: Path) -> dict:
    file = folder / "state.json"
    return json.loads(file.read_bytes()) if file.exists() else {}


def told_of(folder: Path) -> str:
    return f"{state_of(folder).get('error', '')} {said(folder)}"


def drawn(kind: str, layout: Layout, folder: Path, chance: random.Random) -> dict | None:
    """Where and when it falls."""
    if kind == "topology":
        return None
    if kind == "kill":
        return aimed(folder, layout, chance)
    inside = [
        one
        for one in INSIDE
        if "parallel__pipeline" not in layout.keys or one not in ("forward", "backward", "update")
    ]
    fault = {"at": chance.choice(inside), "rank": chance.randrange(layout.ranks)}
    fault["step"] = min(STEPS, stands(folder) + chance.randint(1, 2 * EVERY + 2))
    own = {
        "freeze": {"do": "freeze"},
        "signal": {"do": "signal", "name": chance.choice(("SIGTERM", "SIGUSR1"))},
        "full disk": {"do": "full disk", "at": "writing", "step": None},
        "memory flip": {"do": "flip", "at": "observing"},
        "clock": {"do": "clock", "seconds": chance.choice((-1e5, -60.0, 3600.0, 1e7))},
        "slow": {"do": "slow", "seconds": 0.02, "step": None},
    }
    return fault | own[kind]


def flip_on_disk(one: Played, layout: Layout, folder: Path, chance: random.Random) -> bool:
    """A bit of the newest checkpoint: the start names the file and how to go on, which is then done."""
    found = sorted(folder.glob("checkpoints/step-*"))
    if not found:
        start(
            layout,
            folder,
            {"do": "kill", "at": "observing", "rank": 0, "step": chance.randint(4, STEPS - 1)},
            chance,
        )
        found = sorted(folder.glob("checkpoints/step-*"))
    file = chance.choice(sorted(found[-1].iterdir()))
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)
    code = start(layout, folder, None, chance)
    told = said(folder)
    if not code or file.name not in told or f"mv {found[-1]} " not in told:
        one.verdict = f"disk flip in {file.name}: ended with {code}, and said: {told}"
    found[-1].rename(found[-1].with_name(f"damaged-{one.starts}-{found[-1].name}"))
    return True


def _layout(one: Played, chance: random.Random) -> Layout:
    name = one.layout if one.layout != CHANGING else chance.choice(list(LAYOUTS))
    return Layout(LAYOUTS[name].ranks, {**LAYOUTS[name].keys, **WATCH})


def faults_of(listed: list[dict]) -> int:
    return sum(sum(one["met"].values()) for one in listed)


def by_kind(listed: list[dict]) -> list[list]:
    met, missed = (sum((Counter(one[key]) for one in listed), Counter()) for key in ("met", "missed"))
    return [[kind, met[kind], missed[kind]] for kind in KINDS]


if __name__ == "__main__":
    run_script(main)
