"""A run folder made before the rooms (commit 7826fd3): it resumes and evaluates to equal numbers.

``run_of_0.1.0/run`` is what that version left after 8 of 16 steps (keys: its config.yaml). ``expected.json`` is what
the same version then gave: metrics of steps 9 to 16, and the cross-entropy of the model of step 8 on ``TOKENS``.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from megarc.config import build
from megarc.inference import evaluate
from megarc.parallel import connect, disconnect, meet
from megarc.rank_environment import ALONE
from megarc.science import MAKERS
from megarc.train import Ending, load_model, pretrain, run_config
from megarc.train.checkpoint import latest

MADE = Path(__file__).parent / "run_of_0.1.0"
EXPECTED = json.loads((MADE / "expected.json").read_text())
TOKENS = np.random.default_rng(5).integers(0, 25, 400)


@pytest.fixture
def run(tmp_path):
    return Path(shutil.copytree(MADE / "run", tmp_path / "run"))


@pytest.fixture(scope="module")
def groups():
    yield connect(meet(ALONE), "cpu")
    disconnect()


def test_it_resumes_with_equal_numbers(run, groups):
    config = run_config(latest(run / "checkpoints"))
    config = build(
        type(config), {**config.model_dump(mode="json"), "folder": str(run), "until": None}, "test"
    )
    assert pretrain(config, groups, MAKERS) is Ending.FINISHED
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {line["step"] for line in lines} == set(range(1, 17)), "what was written before stays"
    found = [line for line in lines if line["step"] > 8]
    assert len(found) == len(EXPECTED["metrics"])
    for line, expected in zip(found, EXPECTED["metrics"], strict=True):
        assert {name: line[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_it_evaluates_to_equal_numbers(run):
    saved = load_model(run)
    window = saved.config.window.build()
    score = evaluate(saved.model, TOKENS, window, range(window.first_target, len(TOKENS)))
    assert score.nats_per_token == pytest.approx(EXPECTED["evaluate"], rel=1e-6)
