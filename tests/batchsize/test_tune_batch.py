"""`launch/tune_batch.py`, as a person starts it."""

import json
import sys
from pathlib import Path

import pytest
from support import processes

ROOT = Path(__file__).parents[2]


def tune(*words, code=0):
    done = processes.run(
        [sys.executable, "launch/tune_batch.py", *map(str, words)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


def steps_table(path, steps):
    lines = [f"{64 * 2**power},{count}" for power, count in enumerate(steps)]
    path.write_text("\n".join(["batch,steps", *lines]) + "\n")
    return path


@pytest.fixture
def published(tmp_path):
    small = steps_table(tmp_path / "85M.csv", [46000, 23000, 13282, 7000, 3840, 2528, 1917, 1600, 1600])
    large = steps_table(tmp_path / "302M.csv", [196000, 90000, 46000, 23400, 13300, 7224, 4980, 3400, 2879])
    return small, large


def test_critical_prints_words_then_json(published):
    said = tune("critical", "--table", published[0], "--optimal-batch", 256)
    answer = json.loads(said.splitlines()[-1])
    assert answer["critical_batch"] == pytest.approx(745.3, abs=0.1)
    assert answer["interval"][0] < 745.3 < answer["interval"][1]
    assert set(answer["overheads"]) == {"0.1", "0.2", "0.5"}
    assert answer["a"] > 0 and answer["b"] > 0
    assert "critical batch 745.3" in said.splitlines()[1]


def test_critical_extrapolates_over_sizes(published):
    said = tune("critical", "--table", published[0], "--size", "85e6", "--table", published[1],
                "--size", "302e6", "--optimal-batch", 256, "--extrapolate", "1.2e9")  # fmt: skip
    answer = json.loads(said.splitlines()[-1])
    assert [one["critical_batch"] for one in answer["tables"]] == pytest.approx([745.3, 1393.7], abs=0.1)
    assert 1393.7 < answer["power_law"]["extrapolated"]["1.2e+09"] < 4 * 1393.7


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([400, 200, 100], "3 batch sizes"),
        ([400, 100, 200, 90], "steps rise"),
        ([400, 200, "never", 90], "never reached"),
    ],
)
def test_critical_refuses_without_a_number(tmp_path, steps, said):
    path = steps_table(tmp_path / "steps.csv", steps)
    assert said in tune("critical", "--table", path, "--optimal-batch", 256, code=2)


def test_micro_refuses_experts_that_ranks_share_before_it_reads_anything():
    words = ("micro", "data.train=nowhere", "model.experts={count: 4}", "parallel.expert=2")
    assert "use parallel.expert=1 here" in tune(*words, code=2)


@pytest.mark.parametrize("words", [["--model.layers", "2"], ["micro", "--model.layers=2"]])
def test_a_key_that_is_written_like_a_flag_is_answered_with_how_it_is_written(words):
    assert "written without dashes: model.layers=" in tune(*words, code=2)
