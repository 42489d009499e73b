"""Runs a study: arms x sizes x seeds of one run, side by side, with tables, pictures and a verdict."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples
from megarc.command_line import parsed, whole_number
from megarc.errors import EXIT_USER_ERROR, run_script
from megarc.paths import user_path

if TYPE_CHECKING:
    from megarc.errors import UserError
    from megarc.jobs import Job
    from megarc.science.studies import Cell, GridConfig, Outcome

EXAMPLES = """examples:
  python launch/study.py --config configs/studies/order.yaml                 all runs, one per core at once
  python launch/study.py --config configs/studies/order.yaml --jobs 8 seeds=5
  python launch/study.py --config configs/studies/order.yaml --submit="--time 60"   as a SLURM array
  python launch/study.py --config configs/studies/order.yaml --report        shows finished runs, starts none
  python launch/study.py --keys                                              every key

Each run is a normal run in the study's folder; the same command resumes a study that was stopped. Runs that fail are
named, and the others are shown. docs/theory.md lists the studies of this project and their results."""

LAUNCH = Path(__file__).resolve().parent
ONE_RANK = ("--nodes=1", "--ntasks-per-node=1", "--gpus-per-node=0")
"""Of each run of an array, as without --submit; options of the user come behind them, and win."""


def main() -> int:
    arguments = parsed(parser())
    from megarc.config import load
    from megarc.jobs import sbatch_options, submit
    from megarc.key_reference import reference
    from megarc.science.studies import GridConfig, grid, read_outcome

    if arguments.keys:
        print(reference(GridConfig), end="")
        return 0
    study = load(GridConfig, arguments.config, arguments.overrides)
    jobs = grid(study)
    waiting = [job for job in jobs.values() if not job.finished()]
    if waiting and arguments.submit is not None:
        options = [*ONE_RANK, *sbatch_options(arguments.submit)]
        number = submit(waiting, LAUNCH / "job.sh", options, study.folder)
        print(
            f"submitted as job {number}, {len(waiting)} tasks; give the same command again when they are done"
        )
        return 0
    if arguments.report:
        for job in jobs.values():
            job.check()
    failed = {} if arguments.report else run(jobs, arguments.jobs, arguments.launcher)
    outcome = read_outcome(study, jobs, failed)
    show(outcome)
    return EXIT_USER_ERROR if outcome.failed else 0


def run(jobs: dict[Cell, Job], at_once: int, launcher: str) -> dict[str, str]:
    """Those that are not finished; the names of those that failed, with the reason."""
    from megarc.jobs import run_all, start_of

    names, failed = {job.file: cell.name for cell, job in jobs.items()}, dict[str, str]()

    def note(job: Job, error: UserError) -> None:
        failed[names[job.file]] = str(error)

    run_all(list(jobs.values()), start_of(launcher, LAUNCH / "pretrain.py"), at_once, "runs", note)
    return failed


def show(outcome: Outcome) -> None:
    """Table, pictures, what failed, words; and a file for programs."""
    from megarc.report import table

    study = outcome.study
    if study.claim:
        print(f"claim: {study.claim}")
    print(
        f"{study.measure}, mean over seeds with its standard error; p two-sided, paired by seed, Holm's correction"
    )
    print(table(*outcome.table()))
    for name, reason in outcome.failed.items():
        print(f"\n{name} failed: {reason}")
    for path in draw(outcome):
        print(f"picture: {path}")
    print("\n" + outcome.words())
    write(outcome)


def draw(outcome: Outcome) -> list[Path]:
    """The measure by step, at the largest size; and by size where there are several."""
    from megarc.report import measure_by

    study, written = outcome.study, []
    drawn = [arm.name for arm in study.arms if any(row.arm == arm.name for row in outcome.rows)][:7]
    places = sorted({row.at for row in outcome.rows if row.at is not None})
    shared = {"measure": study.measure, "chance": study.chance}
    if len(places) > 1:
        curves = {
            arm: [
                (row.at, row.mean, row.error) for row in outcome.rows if row.arm == arm and row.at is not None
            ]
            for arm in drawn
        }
        written.append(study.folder / "by-size.png")
        apart = places[0] > 0 and places[-1] / places[0] >= 4
        measure_by(curves, written[-1], title=f"By {study.axis}", across=study.axis, doubling=apart, **shared)
    last = places[-1] if places else None
    by_step = {arm: steps for arm in drawn if (steps := over_seeds(outcome, arm, last))}
    if by_step:
        written.append(study.folder / "by-step.png")
        title = "By step" if last is None else f"By step, {study.axis} {last:g}"
        measure_by(by_step, written[-1], title=title, across="step", **shared)
    return written


def over_seeds(outcome: Outcome, arm: str, at: float | None) -> list[tuple[float, float, float]]:
    """Mean and standard error at each step that all seeds of an arm have."""
    curves = [dict(points) for cell, points in outcome.curves.items() if (cell.arm, cell.at) == (arm, at)]
    steps = sorted(set.intersection(*(set(one) for one in curves))) if curves else []
    found = []
    for step in steps:
        values = [one[step] for one in curves]
        mean, many = math.fsum(values) / len(values), len(values)
        error = (
            math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (many - 1) / many)
            if many > 1
            else math.nan
        )
        found.append((float(step), mean, error))
    return found


def write(outcome: Outcome) -> None:
    """``result.json`` in the study's folder."""
    import orjson

    from megarc.atomic_write import written_atomically

    with written_atomically(outcome.study.folder / "result.json") as file:
        file.write(orjson.dumps(facts_of(outcome), option=orjson.OPT_INDENT_2) + b"\n")


def facts_of(outcome: Outcome) -> dict[str, object]:
    """Everything that tables and words are made of."""
    columns, rows = outcome.table()
    return {
        "claim": outcome.study.claim,
        "measure": outcome.study.measure,
        "seeds": outcome.study.seeds,
        "columns": columns,
        "rows": rows,
        "values": {cell.name: points[-1][1] for cell, points in outcome.curves.items()},
        "steps": {cell.name: points[-1][0] for cell, points in outcome.curves.items()},
        "failed": list(outcome.failed),
        "missing": list(outcome.missing),
        "words": outcome.words(),
    }


def tree() -> type[GridConfig]:
    """The keys that this page reads."""
    from megarc.science.studies import GridConfig

    return GridConfig


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", type=user_path, metavar="FILE", help="YAML file of a study; see configs/studies"
    )
    parser.add_argument("--jobs", type=whole_number, default=len(os.sched_getaffinity(0)), metavar="N",
                        help="number of runs at once (the cores of this machine)")  # fmt: skip
    parser.add_argument("--launcher", default="", metavar="WORDS",
                        help="command that starts ranks; {port} becomes a free port (one rank)")  # fmt: skip
    parser.add_argument("--submit", metavar="OPTIONS", nargs="?", const="",
                        help="submit the runs as a SLURM array, each on one rank without a GPU; OPTIONS are those of "
                        "sbatch, for instance --submit='--time 60 --gpus-per-node=1'")  # fmt: skip
    parser.add_argument("--report", action="store_true", help="start no run; show the results so far")
    parser.add_argument("--keys", action="store_true", help="print every key with type, default, meaning")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="keys that win over the file's")
    return parser


if __name__ == "__main__":
    run_script(main)
