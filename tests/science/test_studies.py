"""A study: its grid, means, errors and p-values against scipy's conventions, words, and a real one from the page."""

import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from support import processes

from megarc.config import build, load
from megarc.errors import UserError
from megarc.science.statistics import paired
from megarc.science.studies import Cell, GridConfig, grid, read_outcome
from megarc.science.studies.outcome import holm
from megarc.train import RunConfig

ROOT = Path(__file__).parents[2]
RUN = {
    "length": "8 steps",
    "window": {"recent": 24, "causal": 16, "stride": 16},
    "model": {"layers": 1, "hidden": 16, "heads": 2},
    "data": {
        "train": [{"kind": "pointer_chase"}],
        "valid": [{"kind": "pointer_chase", "options": {"seed": 9}}],
    },
    "batch": {"size": 4},
    "validation": {"windows": 8, "every": "4 steps"},
    "logging": {"tensorboard": False},
}
ARMS = [{"name": "[R | C]"}, {"name": "causal", "keys": {"window": {"recent": 0, "causal": 40}}}]
SIZES = [{"at": width, "keys": {"model": {"hidden": width}}} for width in (32, 16)]


def study(folder, **keys):
    return build(GridConfig, {"folder": str(folder), "run": RUN, "arms": ARMS, **keys}, "test")


def test_a_run_for_each_arm_size_and_seed(tmp_path):
    jobs = grid(study(tmp_path, sizes=SIZES, seeds=2))
    assert list(jobs) == [
        Cell(arm, at, seed) for at in (16, 32) for seed in (0, 1) for arm in ("[R | C]", "causal")
    ]
    config = jobs[Cell("causal", 32, 1)].config
    assert (config.window.recent, config.model.hidden, config.seed) == (0, 32, 1)
    assert config.folder == tmp_path / "runs" / "causal-32-s1" and jobs[Cell("causal", 32, 1)].steps == 8
    assert jobs[Cell("[R | C]", 16, 0)].config.folder.name == "R-C-16-s0"
    arms = [{"name": "deep", "keys": {"model": {"layers": "{at}"}, "schedule": {"warmup": "1 steps"}}}]
    deep = grid(study(tmp_path, arms=arms, sizes=[{"at": 3}], seeds=1))[Cell("deep", 3, 0)].config
    assert deep.model.layers == 3 and deep.model.hidden == 16
    assert list(grid(study(tmp_path, seeds=1))) == [Cell("[R | C]", None, 0), Cell("causal", None, 0)]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"arms": []}, "arms is empty"),
        ({"arms": [ARMS[0], ARMS[0]]}, "two of one name"),
        ({"control": "none"}, "control is 'none', which is not an arm"),
        ({"sizes": [SIZES[0], SIZES[0]]}, "two of one place"),
        ({"arms": [{"name": "wide", "keys": {"model": {"hiden": 3}}}]}, r"arms, wide.*hiden"),
        ({"arms": [{"name": "a b"}, {"name": "a-b"}]}, "would have one folder"),
    ],
)
def test_what_is_no_study_is_refused(tmp_path, keys, words):
    with pytest.raises(UserError, match=words):
        grid(study(tmp_path, **keys))


def write_runs(jobs, value):
    """Run folders as runs leave them."""
    for cell, job in jobs.items():
        folder = job.config.folder
        folder.mkdir(parents=True)
        lines = [
            {"step": 4, "heldout/accuracy": 0.1},
            {"step": 8, "heldout/accuracy": value(cell)},
            {"step": 8},
        ]
        folder.joinpath("metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        folder.joinpath("state.json").write_text(json.dumps({"state": "finished", "step": 8, "total": 8}))


def test_means_errors_and_p_values_of_known_numbers(tmp_path):
    """Differences .5, .6, .7 have t = .6 / (.1 / sqrt 3) with two degrees of freedom; p by its closed form."""
    values = {"[R | C]": [0.9, 0.9, 1.0], "causal": [0.4, 0.3, 0.3]}
    keys = study(tmp_path, control="causal")
    jobs = grid(keys)
    write_runs(jobs, lambda cell: values[cell.arm][cell.seed])
    outcome = read_outcome(keys, jobs)
    rows = {row.arm: row for row in outcome.rows}
    assert rows["causal"].mean == pytest.approx(1 / 3)
    assert rows["causal"].error == pytest.approx(np.std(values["causal"], ddof=1) / math.sqrt(3))
    [one] = outcome.comparisons()
    t = 0.6 / (0.1 / math.sqrt(3))
    assert one.difference.mean == pytest.approx(0.6) and one.difference.error == pytest.approx(
        0.1 / math.sqrt(3)
    )
    assert one.p == pytest.approx(1 - t / math.sqrt(t * t + 2), rel=1e-6)
    assert outcome.words() == (
        f"[R | C] is ahead of causal: 0.933 against 0.333 (n = 3 seeds, +0.600 +- 0.058, p = {one.p:.2g})."
    )
    assert outcome.curves[Cell("causal", None, 0)] == [(4, 0.1), (8, 0.4)]
    assert "is behind" in read_outcome(keys.model_copy(update={"better": "lower"}), jobs).words()


def test_sizes_are_compared_one_by_one_with_holms_correction(tmp_path):
    values = {16: (0.3, 0.3), 32: (0.95, 0.4)}
    keys = study(tmp_path, control="causal", sizes=SIZES, reach=0.9, axis="width")
    jobs = grid(keys)
    noise = [0.0, 0.01, -0.01, 0.02, 0.0, -0.02]
    write_runs(
        jobs,
        lambda cell: values[cell.at][cell.arm == "causal"] + noise[cell.seed + 3 * (cell.arm == "causal")],
    )
    outcome = read_outcome(keys, jobs)
    small, large = outcome.comparisons()
    raw = [paired([one.control.values[s] for s in range(3)], [one.row.values[s] for s in range(3)]).p
           for one in (small, large)]  # fmt: skip
    assert large.p == pytest.approx(2 * raw[1]) and small.p == pytest.approx(raw[0])
    words = outcome.words()
    assert "[R | C] and causal do not differ clearly at width 16" in words
    assert "[R | C] is ahead of causal at width 32" in words and "n = 3 seeds" in words
    assert "Smallest width with a mean of 0.9: [R | C] 32, causal none." in words


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, math.nan, 0.9])[0] == 1.0 and math.isnan(holm([0.5, math.nan])[1])


def test_failed_and_missing_runs_are_named_and_the_rest_is_shown(tmp_path):
    keys = study(tmp_path, control="causal")
    jobs = grid(keys)
    gone = [Cell("causal", None, 2), Cell("[R | C]", None, 1)]
    write_runs(
        {cell: job for cell, job in jobs.items() if cell not in gone}, lambda cell: 0.5 + cell.seed / 10
    )
    outcome = read_outcome(keys, jobs, {"causal-s2": "out of memory"})
    assert outcome.missing == ["R-C-s1"] and len(outcome.rows) == 2
    [one] = outcome.comparisons()
    assert one.difference.pairs == 1 and "1 seed): one seed shows no difference" in outcome.words()
    assert "1 of 6 runs failed: causal-s2. 1 of 6 runs not finished: R-C-s1." in outcome.words()
    with pytest.raises(UserError, match=r"no metric 'heldout/acuracy'.*heldout/accuracy"):
        read_outcome(keys.model_copy(update={"measure": "heldout/acuracy"}), jobs)
    with pytest.raises(UserError, match=r"no run of the study in .* is finished\ncausal-s0: it burned"):
        read_outcome(study(tmp_path / "none"), grid(study(tmp_path / "none")), {"causal-s0": "it burned"})


def test_the_words_means_are_of_the_seeds_that_are_compared(tmp_path):
    """The control has lost its best seed: both means are of the other two, and their difference is the one shown."""
    keys = study(tmp_path, control="causal")
    jobs = grid(keys)
    values = {"[R | C]": [0.5, 0.6, 1.0], "causal": [0.4, 0.3, 0.9]}
    there = {cell: job for cell, job in jobs.items() if cell != Cell("causal", None, 2)}
    write_runs(there, lambda cell: values[cell.arm][cell.seed])
    outcome = read_outcome(keys, jobs)
    [one] = outcome.comparisons()
    assert one.row.mean - one.control.mean == pytest.approx(one.difference.mean) == pytest.approx(0.2)
    assert "0.550 against 0.350 (n = 2 seeds, +0.200 +-" in outcome.words()


def test_a_measure_that_is_not_finite_at_the_end_is_a_failure_and_not_its_earlier_value(tmp_path):
    keys = study(tmp_path, measure="heldout/nats_per_token", better="lower")
    jobs = grid(keys)
    write_runs(jobs, lambda cell: 0.5)
    for cell, job in jobs.items():
        last = {} if cell.seed == 1 else {"heldout/nats_per_token": 2.0}  # nan is left out of a line
        lines = [{"step": 4, "heldout/accuracy": 0.5, "heldout/nats_per_token": 1.0},
                 {"step": 8, "heldout/accuracy": 0.0, **last}, {"step": 8, "train/skipped": 1}]  # fmt: skip
        job.folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcome = read_outcome(keys, jobs)
    assert set(outcome.failed) == {"R-C-s1", "causal-s1"} and outcome.missing == []
    assert "not a finite number at step 8; its last value is of step 4" in outcome.failed["causal-s1"]
    assert [list(row.values.items()) for row in outcome.rows] == [[(0, 2.0), (2, 2.0)]] * 2


def test_damaged_metrics_of_a_finished_run_are_named(tmp_path):
    keys = study(tmp_path)
    jobs = grid(keys)
    write_runs(jobs, lambda cell: 0.5)
    first = next(iter(jobs.values()))
    for damage in ('{"step": 4, "heldo', "[1]", '{"step": null}'):
        first.folder.metrics.write_text(f'{{"step": 4}}\n{damage}\n{{"step": 8}}\n')
        with pytest.raises(UserError, match=r"metrics\.jsonl, line 2, is not a line of metrics"):
            read_outcome(keys, jobs)


def test_a_real_study_with_a_run_that_fails(tmp_path):
    """Two arms and one that names no corpus: the first two are shown, the third is named, and the code is 2."""
    arms = [{"name": "rc"}, {"name": "causal", "keys": {"window": {"recent": 0, "causal": 40}}},
            {"name": "broken", "keys": {"data": {"train": [{"path": str(tmp_path / "none")}]}}}]  # fmt: skip
    tree = {"folder": str(tmp_path / "study"), "run": RUN, "arms": arms, "seeds": 1, "control": "causal"}
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps(tree))

    def page(*words):
        line = [sys.executable, "launch/study.py", "--config", str(path), *words]
        done = processes.run(line, cwd=ROOT, capture_output=True, text=True)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout + done.stderr

    code, said = page("--jobs", "2")
    assert code == 2 and "broken-s0 failed" in said and "no such corpus" in said, said
    facts = json.loads((tmp_path / "study" / "result.json").read_text())
    assert set(facts["values"]) == {"rc-s0", "causal-s0"} and facts["failed"] == ["broken-s0"]
    assert all(0 <= value <= 1 for value in facts["values"].values())
    assert (tmp_path / "study" / "by-step.png").stat().st_size > 5000
    before = (tmp_path / "study" / "runs" / "rc-s0" / "state.json").stat().st_mtime_ns
    code, said = page("--report")
    assert code == 0 and "1 of 3 runs not finished: broken-s0." in said
    assert (tmp_path / "study" / "runs" / "rc-s0" / "state.json").stat().st_mtime_ns == before
    code, said = page("--jobs", "none")
    assert code == 2 and "not a whole number" in said
    code, said = page("--report", "run.optimizer.lr=0.5")
    assert code == 2 and "is of a study with other keys" in said


def test_without_slurm_the_array_is_written(tmp_path):
    """No sbatch on the path: a line for each run and the command are there for where it is."""
    path = tmp_path / "study.yaml"
    path.write_text(
        json.dumps({"folder": str(tmp_path / "study"), "run": RUN, "arms": ARMS, "sizes": SIZES, "seeds": 1})
    )
    line = [sys.executable, "launch/study.py", "--config", str(path), "--submit=--time 60"]
    environment = {**os.environ, "PATH": "/nowhere"}
    done = processes.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "there is no sbatch here" in done.stderr, done.stderr
    lines = (tmp_path / "study" / "array.txt").read_text().splitlines()
    names = [one.rsplit("/", 1)[1] for one in lines]
    assert names == ["R-C-16-s0.yaml", "causal-16-s0.yaml", "R-C-32-s0.yaml", "causal-32-s0.yaml"]
    config = load(RunConfig, tmp_path / "study" / "runs" / "causal-32-s0.yaml")
    assert config.model.hidden == 32 and config.window.recent == 0
    command = (tmp_path / "study" / "submit.sh").read_text()
    assert "--array=1-4 " in command and "MEGARC_SWEEP=" in command
    # One rank each, as without --submit; the user's options come last, so they win.
    assert " --ntasks-per-node=1 --gpus-per-node=0 --time 60 " in command


def test_a_run_that_failed_elsewhere_is_named_by_its_folder(tmp_path):
    """As tasks of an array do, whose reasons no process of the study has seen; one that goes on has not failed."""
    keys = study(tmp_path, seeds=8)
    jobs = grid(keys)
    write_runs({cell: job for cell, job in jobs.items() if cell.seed < 1}, lambda cell: 0.5)
    for cell, state in ((Cell("causal", None, 1), "failed"), (Cell("causal", None, 2), "running")):
        folder = jobs[cell].folder
        folder.path.mkdir(parents=True)
        folder.write_state(
            state, step=3, total=8, **({"error": "out of memory"} if state == "failed" else {})
        )
    outcome = read_outcome(keys, jobs)
    assert list(outcome.failed) == ["causal-s1"]
    assert (
        "failed at step 3 of 8" in outcome.failed["causal-s1"]
        and "out of memory" in outcome.failed["causal-s1"]
    )
    assert (
        "13 of 16 runs not finished: R-C-s1, R-C-s2, causal-s2, R-C-s3, causal-s3, R-C-s4 and 7 more."
        in outcome.words()
    )


STUDIES = sorted((ROOT / "configs" / "studies").glob("*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_studies_of_the_project_have_runs_that_can_be_opened(path):
    from megarc.science import MAKERS
    from megarc.train import open_heldout, open_train

    keys = load(GridConfig, path)
    assert keys.claim and keys.expected and keys.seeds >= 3 and len(keys.arms) > 1
    for job in grid(keys).values():
        stream = open_train(job.config, MAKERS)
        assert open_heldout(job.config, MAKERS).read(0, 2).tokens.shape == stream.read(0, 2).tokens.shape
