"""`tune_batch.py steps`: runs at several batches to one held-out loss, then the fit of `critical`."""

from __future__ import annotations

import argparse
import json

import numpy as np

from megarc.atomic_write import written_atomically
from megarc.batchsize import StepsTable, StudyConfig, critical_batch, outcome, sweep_jobs
from megarc.config import load
from megarc.errors import UserError
from megarc.jobs import run_all
from megarc.report import StepsPicture, steps_to_loss, table
from tuning.branched import command
from tuning.fit import as_json, words


def steps(arguments: argparse.Namespace) -> int:
    """What is finished of an earlier call is used again; another target needs no new run."""
    study = load(StudyConfig, arguments.config, arguments.overrides)
    keys = study.tune.steps
    jobs = sweep_jobs(study)
    (study.place / "steps").mkdir(parents=True, exist_ok=True)
    run_all(list(jobs.values()), command(arguments.launcher), keys.at_once, "runs")
    found = outcome(study, jobs)
    means = {batch: float(np.mean([y for x, y in found.points if x == batch])) for batch in keys.batches}
    noise = {batch: [y for x, y in found.noise if x == batch] for batch in keys.batches}
    rows = [
        [batch, f"{found.rates[batch]:g}", f"{mean:.0f}", f"{mean * batch:.0f}",
         f"{np.mean(noise[batch]):.1f}" if noise[batch] else None]
        for batch, mean in means.items()
    ]  # fmt: skip
    print(f"to {found.target:g} held-out nats a token, mean of {len(keys.seeds)} seeds")
    print(table(["batch", "rate", "steps", "samples", "noise scale"], rows))
    path = study.place / "steps.csv"
    with written_atomically(path) as file:
        file.write("".join(["batch,steps\n", *(f"{x:g},{y:.2f}\n" for x, y in found.points)]).encode())
    optimal = keys.optimal or float(min(keys.batches))
    picture = study.place / "steps.png"
    drawn = StepsPicture(found.points, [], [], None, found.noise, found.target)
    try:
        answer = critical_batch(
            StepsTable.of(found.points, place=str(path), tolerance=keys.tolerance), optimal
        )
    except UserError:
        steps_to_loss(drawn, picture)
        raise
    sizes = np.geomspace(min(keys.batches), max(keys.batches), 50).tolist()
    start = answer.fit.steps(optimal) * optimal
    drawn = StepsPicture(
        found.points,
        [(size, answer.fit.steps(size)) for size in sizes],
        [(size, start / size) for size in sizes],
        (answer.batch, *answer.interval),
        found.noise,
        found.target,
    )
    steps_to_loss(drawn, picture)
    print(words(path, answer))
    print(f"picture: {picture}")
    print(json.dumps({"target": found.target, "rates": found.rates, **as_json(answer)}))
    return 0
