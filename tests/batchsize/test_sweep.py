"""Steps to a loss: where curves cross it, what counts, and a real sweep from the launcher."""

import json
import sys
from pathlib import Path

import pytest
from support import processes

from megarc.batchsize import StudyConfig, outcome, sweep_jobs
from megarc.batchsize.sweep import Cell, Curve
from megarc.config import build
from megarc.errors import UserError
from megarc.train import Lengths

ROOT = Path(__file__).parents[2]
DATA = {"train": [{"kind": "pointer_chase"}], "valid": [{"kind": "pointer_chase", "options": {"seed": 9}}]}


def test_a_curve_is_crossed_between_its_points():
    curve = Curve([10, 20, 30, 40], [5.0, 4.0, 4.5, 3.0])
    assert curve.steps_to(4.25) == pytest.approx(17.5)
    assert curve.steps_to(3.5) == pytest.approx(30 + 10 * 2 / 3)
    assert curve.steps_to(5.5) == 10 and curve.steps_to(2.9) is None


def study(folder, **steps):
    tree = {"length": "100 samples", "batch": {"size": 10}, "data": DATA, "optimizer": {"lr": 1e-2},
            "tune": {"folder": str(folder), "steps": {"floor": 5, **steps}}}  # fmt: skip
    return build(StudyConfig, tree, "test")


def test_each_run_is_a_normal_one_at_its_own_rate(tmp_path):
    jobs = sweep_jobs(study(tmp_path, batches=[10, 40], rates=[1.0, 2.0], seeds=[3]))
    assert list(jobs) == [Cell(10, 1.0, 3), Cell(10, 2.0, 3), Cell(40, 1.0, 3), Cell(40, 2.0, 3)]
    config = jobs[Cell(40, 2.0, 3)].config
    assert config.optimizer.lr == pytest.approx(1e-2 * 2 * 2) and config.seed == 3
    assert config.batch.size == 40 and config.batch.micro == 20 and config.schedule.kind == "constant"
    assert Lengths(config).total == -(-(100 + 5 * 40) // 40)


def written(jobs, curves):
    """Metrics as runs write them: steps, held-out losses, and the noise scale's two parts."""
    for cell, points in curves.items():
        folder = jobs[cell].config.folder
        folder.mkdir(parents=True)
        lines = [{"step": step, "heldout/nats_per_token": loss, "batch/gradient_square": 2.0,
                  "batch/gradient_variance": 2.0 * step} for step, loss in points]  # fmt: skip
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_rate_with_the_fewest_steps_counts(tmp_path):
    keys = study(tmp_path, batches=[10, 40], rates=[1.0, 2.0], seeds=[0])
    jobs = sweep_jobs(keys)
    written(jobs, {
        Cell(10, 1.0, 0): [(10, 5.0), (20, 4.0)], Cell(10, 2.0, 0): [(10, 5.0), (20, 4.5)],
        Cell(40, 1.0, 0): [(4, 5.0), (8, 4.6)], Cell(40, 2.0, 0): [(4, 5.0), (8, 4.2)],
    })  # fmt: skip
    found = outcome(keys, jobs)
    assert found.target == 4.2 and found.rates == {10: 1.0, 40: 2.0}
    assert found.points == [(10, pytest.approx(18)), (40, pytest.approx(8))]
    assert found.noise == [(10, pytest.approx(10)), (40, pytest.approx(6))]


def test_a_target_that_is_never_reached_is_told_with_the_best(tmp_path):
    keys = study(tmp_path, batches=[10, 40], seeds=[0], target=4.1)
    jobs = sweep_jobs(keys)
    written(jobs, {Cell(10, 1.0, 0): [(20, 4.0)], Cell(40, 1.0, 0): [(8, 4.6)]})
    with pytest.raises(
        UserError, match=r"never reached by all seeds; the lowest losses are batch 40: 4\.6000"
    ):
        outcome(keys, jobs)


def test_without_heldout_data_it_is_refused():
    with pytest.raises(UserError, match=r"give data\.valid"):
        sweep_jobs(build(StudyConfig, {"data": {"train": DATA["train"]}}, "test"))


def test_a_real_sweep(tmp_path):
    """Four batches of a tiny model."""
    tree = {
        "length": "64 samples", "window": {"recent": 24, "causal": 16}, "data": DATA,
        "model": {"layers": 1, "hidden": 16, "heads": 2}, "batch": {"size": 8, "noise_every": 1},
        "optimizer": {"lr": 1e-2}, "schedule": {"warmup": "16 samples"}, "validation": {"windows": 16},
        "logging": {"every": 1, "tensorboard": False, "peak_flops": 1e12},
        "tune": {"folder": str(tmp_path), "steps": {"batches": [4, 8, 16, 32], "seeds": [0], "floor": 8, "heldout": 8}},
    }  # fmt: skip
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(tree))

    def steps(*words, code=0):
        line = [sys.executable, "launch/tune_batch.py", "steps", "--config", str(path), *words]
        done = processes.run(line, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == code and "Traceback" not in done.stderr, done.stdout + done.stderr
        return done.stdout + done.stderr * (code > 0)

    answer = json.loads(steps("tune.steps.tolerance=0.5").splitlines()[-1])
    assert answer["critical_batch"] > 1.2 * 4 and answer["interval"][0] <= answer["critical_batch"]
    assert (tmp_path / "steps.csv").read_text().startswith("batch,steps\n4,")
    assert (tmp_path / "steps.png").stat().st_size > 5000
