"""The table of memory: what is told before a run against what the allocator counts in it."""

import re

import pytest
from support.ranks import run_jobs
from support.runs import pretrain

from megarc.config import build
from megarc.parallel import Topology
from megarc.plan import predict
from megarc.train import RunConfig

MODEL = {"layers": 4, "hidden": 192, "heads": 4}
# The table counts every loss row, as a source without weights has them; the head leaves rows of weight 0 out.
EVERY_ROW = [{"kind": "annotated", "options": {"says": ["uniform"]}}]
CASES = [(0, "fp32", "none"), (1, "bf16", "full"), (2, "fp32", "selective"), (3, "fp32", "none")]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """One table a case, by row: (predicted, measured)."""
    folder = tmp_path_factory.mktemp("runs")
    tables = []
    for number, (zero, precision, recompute) in enumerate(CASES):
        job = pretrain(folder / str(number), zero, 3, precision=precision, model=MODEL,
                       batch={"size": 32, "micro": 16}, execution__recompute=recompute,
                       data__train=EVERY_ROW)  # fmt: skip
        # A process each: what an engine before it lets go late would be counted.
        tables.append(told_by_a_step(job, 1, folder)[0])
    return tables


def told_by_a_step(job, world, folder):
    """The table of a run's first step, by row: (predicted, measured), and the lines behind it."""
    told = run_jobs([{**job, "explain_memory": True}], world, folder).split("MiB of a rank")[1]
    rows = re.findall(r"^(\S.+?) {2,}([\d.]+) +([\d.]+)", told, re.M)
    return {row: (float(predicted), float(seen)) for row, predicted, seen in rows}, told


@pytest.mark.parametrize("case", range(len(CASES)))
def test_what_is_told_is_what_is_seen(tables, case):
    table = tables[case]
    for row in ("weights", "masters, float32", "moments, float32"):
        told, seen = table[row]
        assert told == pytest.approx(seen, rel=0.01, abs=0.05), row
    for row in ("activations, as the backward pass begins", "at its most"):
        told, seen = table[row]
        assert told == pytest.approx(seen, rel=0.1), row


@pytest.mark.parametrize(
    ("zero", "precision", "keys", "near"),
    [
        (3, "bf16", {}, 0.05),
        (0, "fp32", {"parallel__tensor": 2}, 0.05),
        # Muon's update is the peak of the step.
        (2, "fp32", {"optimizer__name": "muon", "batch": {"size": 4, "micro": 1}}, 0.02),
        # Each row goes to all experts, so each rank gets equally many, as the prediction assumes.
        (1, "fp32", {"parallel__expert": 2, "model": {**MODEL, "experts": {"count": 4, "active": 4}}}, 0.05),
    ],
)
def test_two_ranks_need_what_is_predicted(tmp_path, zero, precision, keys, near):
    """What gloo's threads let go counts as freed: without that, up to a third more was measured than there was."""
    job = pretrain(tmp_path / "run", zero, 2, precision=precision, data__train=EVERY_ROW,
                   **{"model": MODEL, "batch": {"size": 16, "micro": 4}, **keys})  # fmt: skip
    table, told = told_by_a_step(job, 2, tmp_path)
    assert ("1.00 to 1.00 times an even share" in told) == ("parallel__expert" in keys)
    for row, within in (("weights", 0.02), ("at its most", near)):
        predicted, seen = table[row]
        assert predicted == pytest.approx(seen, rel=within, abs=0.05), row
    if zero == 1:
        for row in ("masters, float32", "moments, float32"):
            assert table[row][0] == pytest.approx(table[row][1], rel=0.01), row


def test_the_step_that_is_watched_has_the_window_of_its_stage(tmp_path):
    """The first stage's windows are half as long as the last's, for which the run is planned."""
    stages = [
        {"at": at, "recent": rows, "causal": 16, "stride": 16}
        for at, rows in (("0 samples", 4), ("16 samples", 24))
    ]
    job = pretrain(tmp_path / "run", 1, 2, window={"stages": stages}, model=MODEL, batch={"size": 16, "micro": 8},
                   data__train=EVERY_ROW, data__valid=[])  # fmt: skip
    table, told = told_by_a_step(job, 1, tmp_path)
    predicted, seen = table["activations, as the backward pass begins"]
    assert predicted == pytest.approx(seen, rel=0.1), told
    assert "windows of 4 + 16 rows. With those of the largest stage, 24 + 16, " in told


def tree(**keys):
    model = {"layers": 4, "hidden": 64, "heads": 4, "vocabulary": 500}
    window = {"recent": 32, "causal": 32}
    return build(
        RunConfig, {"model": model, "window": window, "batch": {"size": 64, "micro": 16}, **keys}, "test"
    )


def test_shared_out_over_ranks():
    """ZeRO's formulas: a part for each data rank, split layers for each tensor rank."""
    one = predict(tree(), Topology.fit(1))
    four = predict(tree(), Topology.fit(4))
    assert four.weights == one.weights and four.moments == one.moments / 4
    split = predict(tree(parallel={"tensor": 2, "sequence": True}), Topology.fit(2, tensor=2, sequence=True))
    assert split.weights == one.weights / 2
    assert split.activations < 0.6 * one.activations
    shared = predict(tree(parallel={"context": 2}), Topology.fit(2, context=2))
    assert shared.weights == one.weights and shared.moments == one.moments / 2
    assert shared.activations < 0.75 * one.activations
    first, last = (
        predict(tree(parallel={"pipeline": 2}), Topology.fit(2, pipeline=2), rank) for rank in range(2)
    )
    assert first.activations > 1.5 * last.activations  # two micro-batches in flight
