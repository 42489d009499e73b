"""`tune_batch.py micro`: the micro-batch that fits and is fastest, on the real model and device."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import orjson

from megarc.atomic_write import written_atomically
from megarc.batchsize import Forecast, Probe, StudyConfig, Trial, knee, search
from megarc.config import load
from megarc.errors import UserError
from megarc.parallel import Groups, disconnect, gather_objects
from megarc.plan import predict
from megarc.progress import progress
from megarc.rank_environment import read_rank_environment
from megarc.report import micro_batches, table
from megarc.science import MAKERS
from megarc.train import Lengths, start

_PATIENCE = timedelta(minutes=5)


def micro(arguments: argparse.Namespace) -> int:
    """Started by a launcher as a run is: each rank calls it."""
    study = load(StudyConfig, arguments.config, arguments.overrides)
    if study.parallel.expert > 1:
        raise UserError(
            f"parallel.expert {study.parallel.expert}: trials of sizes with experts that are distributed over data "
            "ranks are not supported, because no test runs them; use parallel.expert=1 here"
        )
    try:
        begun = start(read_rank_environment(), study.run, _PATIENCE)
        trials, limit = try_all(study, begun.groups)
        if begun.groups.first:
            tell(study, begun.groups, trials, limit)
    finally:
        disconnect()
    return 0


def try_all(study: StudyConfig, groups: Groups) -> tuple[list[Trial], float]:
    """Every setting of recomputation, and the limit in bytes."""
    found: list[Trial] = []
    limit = 0.0
    keys = study.tune.micro
    for recompute in keys.recompute:
        probe = Probe(study.run(), groups, MAKERS, recompute, keys)
        limit = probe.limit
        with progress(f"recompute {recompute}", None, unit="sizes", quiet=not groups.first) as bar:

            def attempt(size: int, probe: Probe = probe) -> Trial:
                trial = probe.attempt(size)
                bar.advance(1, size=size, fits=trial.fits)
                return trial

            largest = keys.largest or 4 * Lengths(study).batches.size(0) // groups.data.size
            found += search(attempt, largest, forecast(probe, groups))
        probe.close()
    return found, limit


def forecast(probe: Probe, groups: Groups) -> Forecast:
    """The memory that the planner and --explain-memory predict, of the fullest rank, beside the process's own."""

    process = max(gather_objects(probe.process_bytes, groups.world))  # all ranks try the same sizes

    def bytes_of(size: int) -> float:
        # As the probe runs it: a step of several micro-batches.
        batch = probe.config.batch.model_copy(update={"size": 2 * size * groups.data.size, "micro": size})
        config = probe.config.model_copy(update={"batch": batch})
        ranks = {0, groups.world.size - 1}
        return process + max(predict(config, groups.topology, rank).peak for rank in ranks)

    return Forecast(bytes_of, min(gather_objects(probe.limit, groups.world)))


def tell(study: StudyConfig, groups: Groups, trials: list[Trial], limit: float) -> None:
    """Table, picture, and a file for programs."""
    stride = study.window.build().stride
    best = knee(trials, study.tune.micro.knee)
    rows = [
        [one.recompute, one.size, None if one.predicted is None else f"{one.predicted / 2**30:.2f}",
         *(_numbers(one, stride) if one.fits else ["does not fit", None, None]), "<- taken" if one is best else ""]
        for one in trials
    ]  # fmt: skip
    heads = [
        "recompute",
        "micro-batch",
        "GiB predicted",
        "GiB measured",
        "predicted tok/s",
        "ms a micro-batch",
        "",
    ]
    print(table(heads, rows))
    print(f"of one rank, with {describe_ranks(groups)}; limit {limit / 2**30:.2f} GiB")
    facts = {"trials": [asdict(one) for one in trials], "ranks": groups.world.size,
             "data_ranks": groups.data.size, "limit": limit}  # fmt: skip
    with written_atomically(study.place / "micro.json") as file:
        file.write(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
    if best is None:
        raise UserError(
            f"not even a micro-batch of 1 fits into {limit / 2**30:.2f} GiB; raise tune.micro.memory_gib, or "
            "split the model: parallel.zero, parallel.tensor, execution.recompute"
        )
    curves = {
        name: [
            (one.size, one.samples_per_second * stride, float(one.memory or 0))
            for one in trials
            if one.fits and one.recompute == name
        ]
        for name in study.tune.micro.recompute
    }
    picture = study.place / "micro.png"
    micro_batches(curves, (best.recompute, best.size), limit, picture)
    print(f"picture: {picture}")


def read_trials(path: Path) -> tuple[list[Trial], int, int]:
    """What ``tell`` wrote: the trials, all ranks, data ranks."""
    facts = orjson.loads(path.read_bytes())
    return [Trial(**one) for one in facts["trials"]], facts["ranks"], facts["data_ranks"]


def describe_ranks(groups: Groups) -> str:
    size = groups.world.size
    return f"{size} ranks" if size > 1 else "no other beside it"


def _numbers(one: Trial, stride: int) -> list[str]:
    assert one.memory is not None and one.seconds is not None
    return [f"{one.memory / 2**30:.2f}", f"{one.samples_per_second * stride:.0f}",
            f"{1e3 * one.seconds / one.micro_batches:.1f}"]  # fmt: skip
