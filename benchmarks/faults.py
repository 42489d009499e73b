"""Kills random ranks at random moments, starts the run again, and compares it with one that nobody touched.

    python benchmarks/faults.py                 100 kills; about 10 minutes on 2 cores
    python benchmarks/faults.py --kills 5 --layouts dp2-z2

A round is one run: killed with SIGKILL again and again, in a phase drawn by lot (waiting for data, reading, forward,
backward and its reduction, update, copying, writing, renaming, publishing or removing a checkpoint) a few
milliseconds later, or from outside at any time, and started again until it is finished. Then its weights, moments,
losses and the list of consumed samples must be those of an untouched run: bit for bit on the same ranks; to rounding
where each start has another number of ranks, another split or ZeRO stage. Written to benchmarks/results/faults.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from options import options  # noqa: E402
from support.runs import config, full_state  # noqa: E402

from megarc.errors import UserError, run_script  # noqa: E402
from megarc.progress import progress  # noqa: E402
from megarc.rank_environment import free_port  # noqa: E402
from megarc.report import table  # noqa: E402

STEPS, BATCH, EVERY = 40, 8, 3
INSIDE = ["waiting for data", "reading", "weighing", "forward", "backward", "update", "observing"]
SAVING = ["saving", "writing", "renaming", "publishing", "removing"]
OUTSIDE = "from outside"


@dataclass(frozen=True)
class Layout:
    """Ranks and how they are used."""

    ranks: int
    keys: dict

    def tree(self, folder: Path) -> dict:
        keys = {"checkpoint__every": f"{EVERY} steps", "health__patience": 60.0, **self.keys}
        return config(folder, 1, STEPS, **keys)


LAYOUTS = {
    "one-z0": Layout(1, {"parallel__zero": 0}),
    "dp2-z0": Layout(2, {"parallel__zero": 0}),
    "dp2-z1": Layout(2, {"parallel__zero": 1}),
    "dp2-z2": Layout(2, {"parallel__zero": 2}),
    "dp2-z3": Layout(2, {"parallel__zero": 3}),
    "tp2-z1": Layout(2, {"parallel__tensor": 2, "parallel__sequence": True}),
    "pp2-z1": Layout(2, {"parallel__pipeline": 2}),
}
CHANGING = "another at each start"


class Surroundings(Protocol):
    """What a run stands in, and what is done to that from outside while the run goes on."""

    environment: dict[str, str]

    def enter(self, rank: int) -> None:
        """In the process of a rank, before anything else."""

    def look(self) -> None:
        """In the campaign, again and again while ranks run: it may strike now."""


@dataclass
class Round:
    """One run and what befell it."""

    layout: str
    kills: Counter = field(default_factory=Counter)
    starts: int = 0
    verdict: str = ""


def main() -> int:
    parser = options(__doc__, "faults.json")
    parser.add_argument("--kills", type=int, default=100, help="in all (100)")
    parser.add_argument("--each", type=int, default=5, help="kills of one run (5)")
    parser.add_argument("--layouts", default=",".join([*list(LAYOUTS)[1:], CHANGING]), help="by comma")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rounds = campaign(Path(scratch), arguments)
    result = summary(rounds, arguments)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table(["ranks", "runs", "starts", "kills", "equal"], result["by_layout"]))
    print(table(["killed while", "times"], list(result["kills_by_phase"].items())))
    print(f"{result['kills']} kills, {result['equal']} of {result['runs']} runs equal to an untouched one")
    failures = [f"{one.layout}: {one.verdict}" for one in rounds if one.verdict != "equal"]
    if failures:
        raise UserError("\n       ".join(failures))
    return 0


def campaign(scratch: Path, arguments: argparse.Namespace) -> list[Round]:
    """Rounds over the layouts in turn, until so many kills have hit."""
    _import_all()
    chance = random.Random(arguments.seed)
    names = arguments.layouts.split(",")
    rounds: list[Round] = []
    untouched: dict[str, Path] = {}
    with progress("kills", arguments.kills) as bar:
        while (left := arguments.kills - sum(one.kills.total() for one in rounds)) > 0:
            name = names[len(rounds) % len(names)]
            same = "one-z0" if name == CHANGING else name
            if same not in untouched:
                untouched[same] = scratch / f"untouched-{same}"
                if start(LAYOUTS[same], untouched[same], None, chance):
                    raise UserError(f"the untouched run of {same} failed: {said(untouched[same])}")
            one = Round(name)
            folder = scratch / f"run-{len(rounds)}"
            play(one, folder, min(arguments.each, left), chance)
            one.verdict = one.verdict or compare(untouched[same], folder, exact=name != CHANGING)
            rounds.append(one)
            if one.verdict == "equal":
                shutil.rmtree(folder)
            bar.advance(one.kills.total(), bad=sum(one.verdict != "equal" for one in rounds))
    return rounds


def play(one: Round, folder: Path, kills: int, chance: random.Random) -> None:
    """Kills the run so often, then lets it finish."""
    while True:
        layout = LAYOUTS[one.layout if one.layout != CHANGING else chance.choice(list(LAYOUTS))]
        fault = None
        if one.kills.total() < kills:
            fault = aimed(folder, layout, chance)
        one.starts += 1
        died = start(layout, folder, fault, chance)
        if died == signal.SIGKILL and fault is not None:
            one.kills[fault["at"]] += 1
        elif died == 0:
            # finished before the kill could hit: once more from its first quarter
            if one.kills.total() < kills:
                rewind(folder)
                continue
            return
        else:
            one.verdict = f"start {one.starts} ended with {died}: {said(folder)}"
            return


def aimed(folder: Path, layout: Layout, chance: random.Random) -> dict:
    """Where and when the next kill falls."""
    at = chance.choice([*INSIDE, *SAVING, OUTSIDE])
    if "parallel__pipeline" in layout.keys and at in ("forward", "backward", "update"):
        at = "pipeline"
    stands = max((int(path.name[5:]) for path in folder.glob("checkpoints/step-*")), default=0)
    fault = {"do": "kill", "at": at, "rank": chance.randrange(layout.ranks)}
    fault["seconds"] = chance.choice([0.0, chance.uniform(0.0005, 0.02)])
    if at in INSIDE or at == "pipeline":
        fault["step"] = min(STEPS, stands + chance.randint(1, 2 * EVERY + 2))
    if at in ("publishing", "removing"):
        fault["rank"] = 0  # it alone does these
    return fault


def rewind(folder: Path) -> None:
    for path in folder.glob("checkpoints/step-*"):
        shutil.rmtree(path)


# ---- ranks: real processes, forked from one that has imported everything


def start(
    layout: Layout,
    folder: Path,
    fault: dict | None,
    chance: random.Random,
    around: Surroundings | None = None,
) -> int:
    """Starts the run on its ranks and waits: 0, or the signal or code (above 1000) of the first that failed."""
    inside = fault if fault and fault["at"] != OUTSIDE else None
    environment = {
        "WORLD_SIZE": str(layout.ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "MEGARC_FAULTS": json.dumps([inside] if inside else []),
        "MEGARC_SAMPLES": f"{folder}-samples",
        **(around.environment if around else {}),
    }
    output = Path(f"{folder}-output")
    ranks = {
        _fork(layout, folder, {**environment, "RANK": str(rank)}, output, around): rank
        for rank in range(layout.ranks)
    }
    end = time.monotonic() + (chance.uniform(0.1, 3.0) if fault and not inside else 600.0)
    first = 0
    left = dict(ranks)
    while left:
        if around:
            around.look()
        if time.monotonic() > end:
            os.kill(
                next(number for number, rank in left.items() if not fault or rank == fault["rank"]),
                signal.SIGKILL,
            )
            end = float("inf")
        ended = {number: _code(status) for number, status in map(_poll, left) if number}
        left = {number: rank for number, rank in left.items() if number not in ended}
        failed = [code for code in ended.values() if code != 1000]
        if failed and not first:
            # A signal is the cause, and another rank's error at the same moment its consequence. The others end as a
            # launcher would end them: some time later, whatever they are doing.
            first = min(failed)
            time.sleep(chance.choice([0.0, chance.uniform(0, 0.3)]))
            for other in left:
                os.kill(other, signal.SIGKILL)
        if not ended:
            time.sleep(0.005)
    return first


def _poll(process: int) -> tuple[int, int]:
    """Its number and status if it has ended, else 0; other children of this process are not reaped."""
    return os.waitpid(process, os.WNOHANG)


def _code(status: int) -> int:
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 1000 + os.WEXITSTATUS(status)


def _import_all() -> None:
    """Before the first fork, so that no rank need do it again."""
    os.environ |= {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    torch.set_num_threads(1)
    from megarc.science import MAKERS  # noqa: F401
    from megarc.train import RunConfig, pretrain, start  # noqa: F401
    from megarc.train.engine.deepspeed_import import import_deepspeed

    import_deepspeed(torch.device("cpu"))
    gc.collect()
    gc.freeze()  # a rank's collections look at what it makes itself, which halves the CPU time of its start


def _fork(
    layout: Layout, folder: Path, environment: dict[str, str], output: Path, around: Surroundings | None
) -> int:
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        with output.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.environ |= environment | {"LOCAL_RANK": environment["RANK"]}
        if around:
            around.enter(int(environment["RANK"]))
        code = _be_a_rank(layout, folder)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def _be_a_rank(layout: Layout, folder: Path) -> int:
    from megarc.config import build
    from megarc.parallel import disconnect
    from megarc.rank_environment import read_rank_environment
    from megarc.science import MAKERS
    from megarc.train import RunConfig, pretrain, start

    begun = start(
        read_rank_environment(),
        lambda: build(RunConfig, layout.tree(folder), "faults"),
        timedelta(seconds=60),
    )
    pretrain(begun.config, begun.groups, MAKERS)
    disconnect()
    return 0


# ---- comparing


def compare(untouched: Path, folder: Path, exact: bool) -> str:
    """``equal``, or what differs."""
    losses, expected = losses_of(folder), losses_of(untouched)
    if sorted(losses) != list(range(1, STEPS + 1)):
        return f"losses of {len(losses)} steps instead of {STEPS}"
    if problem := samples_wrong(untouched, folder, exact):
        return problem
    worst = max(abs(losses[step] - loss) / abs(loss) for step, loss in expected.items())
    there = full_state(untouched)
    apart = max(
        float((values - there[part]).abs().max() / there[part].abs().max().clamp_min(1e-8))
        for part, values in full_state(folder).items()
    )
    if exact:
        return "equal" if worst == 0 and apart == 0 else f"losses differ by {worst:.1e}, state by {apart:.1e}"
    # As far as tests/train/engine/test_parity.py lets topologies differ in rounding, over more steps.
    return "equal" if worst < 1e-4 and apart < 5e-3 else f"losses differ by {worst:.1e}, state by {apart:.1e}"


def losses_of(folder: Path) -> dict[int, float]:
    """By step; a step that stands twice counts as lost."""
    found: dict[int, float] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line)
        if "train/nats_per_token" in values:
            found[-1 if values["step"] in found else values["step"]] = values["train/nats_per_token"]
    return found


def samples_wrong(untouched: Path, folder: Path, exact: bool) -> str:
    """What is wrong with the samples that were consumed, or "": a step done again must take the same ones."""
    records = taken(folder)
    for step in range(1, STEPS + 1):
        union = {sample for rank in records.values() for each in rank.get(step, set()) for sample in each}
        if union != set(range((step - 1) * BATCH, step * BATCH)):
            return f"step {step} took samples {sorted(union)}"
    if exact and records != taken(untouched):
        return "a rank took other samples than in the untouched run, or a step done again did"
    return ""


def taken(folder: Path) -> dict[str, dict[int, set[tuple[int, ...]]]]:
    """Of each rank and step, the samples in order; more than one entry where starts differ."""
    found: dict[str, dict[int, set[tuple[int, ...]]]] = {}
    for file in Path(f"{folder}-samples").glob("rank-*"):
        steps = found.setdefault(file.name, {})
        for line in file.read_text().splitlines():
            step, *samples = map(int, line.split())
            steps.setdefault(step, set()).add(tuple(samples))
    return found


def said(folder: Path) -> str:
    return Path(f"{folder}-output").read_text()[-600:]


def summary(rounds: list[Round], arguments: argparse.Namespace) -> dict:
    kills: Counter = sum((one.kills for one in rounds), Counter())
    names = list(dict.fromkeys(one.layout for one in rounds))
    of = {name: [one for one in rounds if one.layout == name] for name in names}
    by_layout = [
        [
            name,
            len(all_),
            sum(one.starts for one in all_),
            sum(one.kills.total() for one in all_),
            sum(one.verdict == "equal" for one in all_),
        ]
        for name, all_ in of.items()
    ]
    words = f"--kills {arguments.kills} --each {arguments.each} --seed {arguments.seed}"
    return {
        "command": f"python benchmarks/faults.py {words}",
        "torch": torch.__version__,
        "kills": kills.total(),
        "runs": len(rounds),
        "equal": sum(one.verdict == "equal" for one in rounds),
        "kills_by_phase": dict(kills.most_common()),
        "by_layout": by_layout,
        "runs_in_order": [
            {"layout": one.layout, "starts": one.starts, "kills": dict(one.kills), "verdict": one.verdict}
            for one in rounds
        ],
    }


if __name__ == "__main__":
    run_script(main)
