"""Steps with nothing to learn, ids that are none, a schedule that changes: each is named, none is counted as bad."""

import re

import pytest
from support.ranks import run_jobs
from support.runs import full_state, metrics, pretrain


def says(what):
    return {"data__train": [{"kind": "annotated", "options": {"says": [what]}}]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    cosine = {"schedule": {"kind": "cosine", "warmup": "1 steps", "final": 0.1}}
    jobs = [
        pretrain(folder / "empty-z0", 0, 5, **says("empty"), health__bad_steps=3),
        {**pretrain(folder / "beyond", 1, 6, **says("beyond")), "may_fail": True},
        pretrain(folder / "longer", 1, 4, **cosine),
        pretrain(folder / "longer", 1, 20, **cosine),
        pretrain(folder / "stopped", 1, 8, **cosine, until="4 steps"),
        pretrain(folder / "stopped", 1, 8, **cosine),
    ]
    pipeline = {"parallel__pipeline": 2, "precision": "bf16"}
    pair = [
        pretrain(folder / "empty-pp2", 1, 5, **says("empty"), **pipeline, health__bad_steps=3),
        pretrain(folder / "empty-z3", 3, 5, **says("empty"), health__bad_steps=3),
    ]
    run_jobs(pair, 2, folder)
    return folder, run_jobs(jobs, 1, folder)


@pytest.mark.parametrize("name", ["empty-z0", "empty-z3", "empty-pp2"])
def test_batches_without_any_weight_are_left_out_and_not_bad(runs, name):
    """Three bad ones in a row would have ended the run."""
    folder = runs[0] / name
    log = (folder / "log.txt").read_text()
    for step in range(1, 6):
        assert f"step {step} has no row with a weight above 0: nothing to learn, no update" in log
    assert "in a row" not in log
    assert metrics(folder, "train/skipped").tolist() == [1, 2, 3, 4, 5]
    assert metrics(folder, "heldout/nats_per_token").isfinite().all()
    for part, values in full_state(folder).items():
        assert part.endswith("/master") or not values.any()  # no moment has moved


def test_an_id_that_the_model_has_not_is_named_before_its_step(runs):
    _, output = runs
    told = r"error: pointer chase: sample \d+ of the order \(its window \d+\) holds the id 27 at place 7; "
    assert re.search(told + "the model's ids are 0 to 24. Set model.vocabulary", output)


def test_a_learning_rate_that_jumps_at_a_resume_is_named(runs):
    folder, _ = runs
    log = (folder / "longer/log.txt").read_text()
    assert log.count("the learning rate jumps from 0.0003 to 0.00") == 1
    assert "at step 5, because keys changed (length 4 steps -> 20 steps)" in log
    assert "jumps" not in (folder / "stopped/log.txt").read_text()
