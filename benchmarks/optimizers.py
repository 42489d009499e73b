"""AdamW against Muon, and cosine against Seesaw, on the demo corpus: steps to a loss, and the time of a step.

    make demo                                         the corpus, demo/text, if it is not there yet
    python benchmarks/optimizers.py                   what is left of the campaign, then the table and the plot
    python benchmarks/optimizers.py --minutes 5       stops after so long; the next call goes on
    python benchmarks/optimizers.py --speed           the time of a step of each optimizer, in turn in one process

Rules: the model and batch of configs/demo/batch.yaml; one grid for every arm on seed 0, of peak learning rates by
multipliers of the hidden matrices' rate, then the best of each on all seeds. The multiplier is part of the grid because
Muon gives the embeddings a rate of their own, and AdamW with one rate for all is no tuned baseline; where an arm's best
has the smallest multiplier, smaller ones are tried. An arm that is
shorter has a whole schedule of its own, from warm-up to its end. Every run is a line of
benchmarks/results/optimizers.jsonl; a run that stands there is not made again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from stale import mark_of

from megarc.atomic_write import written_atomically
from megarc.config import load, overlaid
from megarc.errors import UserError, run_script
from megarc.parallel import Groups, connect, disconnect, meet
from megarc.rank_environment import ALONE
from megarc.report import table
from megarc.science import MAKERS
from megarc.train import MicroBatch, RunConfig, build_engine, pretrain

ROOT = Path(__file__).resolve().parents[1]
CONFIG, RESULTS = ROOT / "configs" / "demo" / "batch.yaml", ROOT / "benchmarks" / "results"
STEPS, SEEDS = 300, range(5)
RATES, HIDDEN = (4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2), (1.0, 0.25, 0.1, 0.03, 0.01)
FIRST = 3  # of HIDDEN; further ones where the best lies at the edge
COMMON = ["schedule.kind=cosine", "schedule.warmup=0.1 of run", "schedule.final=0.0", "batch.noise_every=0",
          "validation.every=100000 steps", "logging.every=100", "checkpoint.every=100000 steps"]  # fmt: skip


PICTURE = ROOT / "docs" / "pictures" / "optimizers.png"
PAGE, MARK = ROOT / "docs" / "optimizers.md", "<!-- below: python benchmarks/optimizers.py -->\n"


class Arm(NamedTuple):
    """A way to train.

    Attributes:
        keys: over the configuration.
        share: of the samples that it takes.
        batch: samples of its first steps; its learning rate is in proportion to the root.
        against: the arm that it is compared with, seed by seed.
    """

    keys: list[str]
    share: float = 1.0
    batch: int = 16
    against: str = "adamw"


ROWS_RATIO = "ratio of equal rows"  # in the file of speeds
MUON = ["optimizer.name=muon"]
ROWS = [*MUON, "optimizer.muon.equal_rows=true"]
ARMS = {
    "adamw": Arm([]),
    "muon": Arm(MUON),
    "muon, 0.75 of the steps": Arm(MUON, 0.75),
    "muon, 0.6 of the steps": Arm(MUON, 0.6),
    "muon, equal rows": Arm(ROWS),
    "muon, equal rows, 0.75 of the steps": Arm(ROWS, 0.75),
    "muon, equal rows, 0.6 of the steps": Arm(ROWS, 0.6),
    "adamw, batch 4": Arm([], batch=4),
    "adamw, batch 4, seesaw": Arm(["batch.rate=seesaw"], batch=4, against="adamw, batch 4"),
}
TUNED = {name: name.split(",")[0] for name in ARMS}
"""Whose best learning rate an arm takes: those that are tuned take their own."""


class Run(NamedTuple):
    """One run of the campaign."""

    arm: str
    rate: float
    hidden: float
    """Multiplies the rate of the hidden matrices."""
    seed: int


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=float, default=1e9, help="stop after so many; the next call goes on"
    )
    parser.add_argument(
        "--only",
        default="",
        metavar="ARM",
        help="runs of this arm alone, and of those whose names go on from it",
    )
    parser.add_argument("--speed", action="store_true", help="time steps instead")
    parser.add_argument("--only-write", action="store_true", help="the table from what is there")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    torch.set_num_threads(1)
    until = time.monotonic() + 60 * arguments.minutes
    if not arguments.only_write:
        groups = connect(meet(ALONE), "cpu")
        if arguments.speed:
            speed(groups)
        else:
            campaign(groups, until, arguments.only)
        disconnect()
    text = report(results())
    above = PAGE.read_text(encoding="utf-8").split(MARK)[0]
    with written_atomically(PAGE) as file:
        file.write(f"{above}{MARK}\n{text}\n".encode())
    print(text)
    return 0


def campaign(groups: Groups, until: float, only: str) -> None:
    """The runs that have no line yet, until the time is over; ``only`` those whose arm begins so."""
    if not (ROOT / "demo" / "text" / "train.bin").exists():
        raise UserError("demo/text/train.bin is not there: run make demo, which makes the corpus first")
    while time.monotonic() < until:
        left = (run for run in missing(results()) if f"{run.arm},".startswith(f"{only}," if only else ""))
        if (run := next(left, None)) is None:
            return
        begun = time.process_time()
        found = {**run._asdict(), **trained(run, groups)}
        found["cpu_seconds"] = round(time.process_time() - begun, 1)
        with (RESULTS / "optimizers.jsonl").open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(found, flush=True)


def missing(done: dict[Run, dict[str, Any]]) -> Iterator[Run]:
    """Runs still to be made: of each tuned arm its grid, then all seeds of those that take its best rates."""
    for tuned in sorted(set(TUNED.values())):
        grid = grid_of(done, tuned)
        yield from (run for run in grid if run not in done)
        if all(run in done for run in grid):
            best = best_of(done, tuned)
            arms = [arm for arm in ARMS if TUNED[arm] == tuned]
            finals = [best._replace(arm=arm, seed=seed) for seed in SEEDS for arm in arms]
            yield from (run for run in finals if run not in done)


def grid_of(done: dict[Run, dict[str, Any]], arm: str) -> list[Run]:
    """All rates by the first multipliers, and by further ones as long as the best has the last."""
    for count in range(FIRST, len(HIDDEN) + 1):
        grid = [Run(arm, rate, hidden, 0) for hidden in HIDDEN[:count] for rate in RATES]
        if any(run not in done for run in grid) or best_of(done, arm).hidden != HIDDEN[count - 1]:
            break
    return grid


def trained(run: Run, groups: Groups) -> dict[str, Any]:
    """Its last held-out loss, in nats a token, and its steps."""
    arm = ARMS[run.arm]
    with tempfile.TemporaryDirectory() as scratch:
        samples = round(STEPS * arm.share) * 16
        rate = run.rate * (arm.batch / 16) ** 0.5
        keys = [*COMMON, *arm.keys, f"length={samples} samples", f"batch.size={arm.batch}", f"optimizer.lr={rate}",
                f"optimizer.rates.hidden={run.hidden}", f"seed={run.seed}",
                f"folder={scratch}/run"]  # fmt: skip
        pretrain(load(RunConfig, CONFIG, keys), groups, MAKERS)
        lines = [
            json.loads(line) for line in (Path(scratch) / "run" / "metrics.jsonl").read_text().splitlines()
        ]
    scored = [line for line in lines if "heldout/nats_per_token" in line]
    if not scored:
        raise UserError("a run was stopped before its end; the same command makes it again")
    return {"heldout": scored[-1]["heldout/nats_per_token"], "steps": scored[-1]["step"]}


def results() -> dict[Run, dict[str, Any]]:
    """What stands in the file."""
    file = RESULTS / "optimizers.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return {Run(*(line[name] for name in Run._fields)): line for line in lines}


def best_of(done: dict[Run, dict[str, Any]], arm: str) -> Run:
    """The best of the arm's grid, of those that were tried."""
    tried = [run for run in done if run.arm == arm and run.seed == 0]
    return min(tried, key=lambda run: done[run]["heldout"])


def report(done: dict[Run, dict[str, Any]]) -> str:
    """The tables of docs/optimizers.md."""
    tuned = sorted(set(TUNED.values()))
    grid = [
        [
            arm,
            f"{hidden:g}",
            *(
                f"{done[run]['heldout']:.4f}" if (run := Run(arm, rate, hidden, 0)) in done else "-"
                for rate in RATES
            ),
        ]
        for arm in tuned
        for hidden in HIDDEN
        if any(Run(arm, rate, hidden, 0) in done for rate in RATES)
    ]
    head = ["held-out nats, seed 0", "hidden rate x", *(f"lr {rate:g}" for rate in RATES)]
    shown = [table(head, grid, markdown=True)]
    if left := len(list(missing(done))):
        shown.append(
            f"{left} runs of this stage of the campaign are still to be made: the table below is of the rest."
        )
    if all(any(run.arm == arm for run in done) for arm in tuned):
        best = {arm: best_of(done, arm) for arm in tuned}
        shown.append(finals(done, best))
        shown += filter(None, (reaches(done, best, arm) for arm in ("muon", "muon, equal rows")))
        draw(done)
    speed_file = RESULTS / "optimizers_speed.json"
    if speed_file.exists():
        found = json.loads(speed_file.read_text())
        rows = f", and {found[ROWS_RATIO]:.2f} with equal rows" if ROWS_RATIO in found else ""
        shown.append(
            f"A step of `configs/demo/text.yaml` takes {found['adamw']:.0f} ms of CPU time with AdamW and "
            f"{found['muon']:.0f} ms with Muon; the median ratio of blocks in turn is {found['ratio']:.2f}"
            f"{rows} (`python benchmarks/optimizers.py --speed`)."
        )
    mark = mark_of("benchmarks/optimizers.py")
    return "\n\n".join(f"{mark}\n\n{one}" if one.startswith("|") else one for one in shown)


def finals(done: dict[Run, dict[str, Any]], best: dict[str, Run]) -> str:
    rows = []
    for name, arm in ARMS.items():
        own, base = (of_arm(done, best, one) for one in (name, arm.against))
        if not own:
            continue
        run, steps = best[TUNED[name]], next(iter(own.values()))["steps"]
        gains = [line["heldout"] - base[seed]["heldout"] for seed, line in own.items() if seed in base]
        rows.append([name, f"{run.rate * (arm.batch / 16) ** 0.5:g}", f"{run.hidden:g}", str(steps),
                     mean_of([line["heldout"] for line in own.values()], ".4f"),
                     "" if name == arm.against else f"{mean_of(gains, '+.4f')} to {arm.against}",
                     str(len(own))])  # fmt: skip
    head = ["arm", "lr", "hidden rate x", "steps", "held-out nats", "difference, paired by seed", "seeds"]
    return table(head, rows, markdown=True)


def reaches(done: dict[Run, dict[str, Any]], best: dict[str, Run], arm: str) -> str | None:
    """Of which share of AdamW's steps the arm needs, linear between those that were trained; None: not yet known."""
    base = of_arm(done, best, "adamw")
    above = {
        share: statistics.mean(
            line["heldout"] - base[seed]["heldout"] for seed, line in found.items() if seed in base
        )
        for share, name in ((1.0, arm), *((share, f"{arm}, {share} of the steps") for share in (0.75, 0.6)))
        if (found := of_arm(done, best, name))
    }
    for (most, low), (least, high) in itertools.pairwise(above.items()):
        if low <= 0 <= high:
            share = most + (most - least) * low / (high - low)
            return (
                f"With {share:.2f} of the steps, {arm} is where AdamW ends (linear between the arms above)."
            )
    return None


def of_arm(done: dict[Run, dict[str, Any]], best: dict[str, Run], arm: str) -> dict[int, dict[str, Any]]:
    """Its runs at the rates that it takes, by seed."""
    wanted = best[TUNED[arm]]._replace(arm=arm)
    return {run.seed: line for run, line in done.items() if run == wanted._replace(seed=run.seed)}


def mean_of(values: list[float], form: str) -> str:
    """The mean, and its standard error."""
    if len(values) < 2:
        return f"{values[0]:{form}}" if values else "-"
    return f"{statistics.mean(values):{form}} ± {statistics.stdev(values) / len(values) ** 0.5:.4f}"


def draw(done: dict[Run, dict[str, Any]]) -> None:
    """Held-out losses over learning rates, and over steps."""
    from megarc.report.style import PALETTE, new_figure, plain_axes, save

    figure = new_figure(10, 4.8)
    left, right = figure.subplots(1, 2)
    for colour, tuned in zip(PALETTE, ("adamw", "muon"), strict=False):
        for line, hidden in zip(("-", "--", ":", "-.", "-"), HIDDEN, strict=True):
            points = [
                (rate, done[run]["heldout"]) for rate in RATES if (run := Run(tuned, rate, hidden, 0)) in done
            ]
            if points:
                left.plot(*zip(*points, strict=True), line, color=colour, marker="o", markersize=3,
                          label=f"{tuned}, hidden x {hidden:g}")  # fmt: skip
    best = {arm: best_of(done, arm) for arm in ("adamw", "muon")}
    for colour, group in zip(PALETTE, ("adamw", "muon", "muon, equal rows"), strict=False):
        names = [name for name in ARMS if name == group or name.startswith(f"{group}, 0.")]
        found = [line for name in names for line in of_arm(done, best, name).values()]
        losses = [line["heldout"] for line in found]
        right.plot([line["steps"] for line in found], losses, "o", color=colour, markersize=4, label=group)
        if group == "adamw" and found:
            right.axhline(statistics.mean(losses), color=colour, linewidth=1)
    plain_axes(left, "rates, seed 0", "learning rate", "held-out nats / token")
    plain_axes(right, "each at its best rates, a point for each seed", "steps", "held-out nats / token")
    left.set_xscale("log", base=2)
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    save(figure, PICTURE)


# ---- the time of a step

BLOCK, BLOCKS = 2, 10
SPEED = ROOT / "configs" / "demo" / "text.yaml"


def speed(groups: Groups) -> None:
    """Milliseconds of CPU time of a step of configs/demo/text.yaml, by optimizer, the median of blocks in turn."""
    config = load(RunConfig, SPEED, ["model.vocabulary=8192"])
    size = config.batch.size
    config = overlaid(config, {"batch": {"micro": size}}, "speed")
    window = config.window.build()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 8192, (size, window.tokens), generator=generator)
    batch = MicroBatch(tokens, window.recent, None, torch.arange(size).numpy())
    arms = {
        "adamw": {"name": "adamw"},
        "muon": {"name": "muon"},
        "muon, equal rows": {"name": "muon", "muon": {"equal_rows": True}},
    }
    engines = {
        name: build_engine(overlaid(config, {"optimizer": keys}, "speed"), groups)
        for name, keys in arms.items()
    }
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(BLOCKS + 1):
        for name, engine in engines.items():
            begun = time.process_time()
            for _ in range(BLOCK):
                engine.step([batch], 1e-4)
            times[name].append((time.process_time() - begun) / BLOCK)
    found = {name: 1e3 * statistics.median(seconds[1:]) for name, seconds in times.items()}
    for name, ratio in (("muon", "ratio"), ("muon, equal rows", ROWS_RATIO)):
        pairs = zip(times["adamw"][1:], times[name][1:], strict=True)
        found[ratio] = statistics.median(own / adamw for adamw, own in pairs)
    (RESULTS / "optimizers_speed.json").write_text(json.dumps(found, indent=2) + "\n")
    print({name: round(value, 3) for name, value in found.items()})


if __name__ == "__main__":
    run_script(main)
