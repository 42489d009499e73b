"""A run whose layers are of every mixer: it resumes, and is scored, continued and exported like any other."""

import pytest
import torch
from support.runs import full_state
from support.small_run import key_words, make_run, page

from megarc.config import build
from megarc.errors import UserError
from megarc.inference import load_exported
from megarc.train import RunConfig, load_model

MIXERS = 'model={"layers": 4, "hidden": 32, "heads": 4, "mixers": "ssm crf ssm_attention attention"}'
TOKENS = torch.arange(2 * 18).view(2, 18) * 7 % 120


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Four steps, stopped behind the second; ``once`` beside it, which was not."""
    folder = tmp_path_factory.mktemp("mixers")
    make_run(folder)  # for its corpus
    for name, until in (("run", "2 steps"), ("run", "4 steps"), ("once", "4 steps")):
        words = [f"folder={folder / ('of-' + name)}", MIXERS, "checkpoint.every=2 steps", f"until={until}"]
        assert page("launch/pretrain.py", *key_words(folder, "x", steps=4), *words) == 0
    return folder / "of-run"


def test_resumes_bit_for_bit(run):
    ours, other = full_state(run), full_state(run.parent / "of-once")
    assert ours.keys() == other.keys()
    assert any(name.startswith("blocks.1.attention.source") for name in ours)
    assert all(torch.equal(values, other[name]) for name, values in ours.items())


def test_is_scored_and_continues_a_text(run, capsys):
    assert page("launch/evaluate.py", "--run", run, "--corpus", run.parent / "sums") == 0
    capsys.readouterr()
    words = ["--prompt", "1+1", "--tokens", 24, "--temperature", 0]
    assert page("launch/generate.py", "--run", run, *words) == 0
    written = capsys.readouterr().out
    assert page("launch/generate.py", "--run", run, *words) == 0
    assert written.strip() and capsys.readouterr().out == written


def test_is_exported_in_our_layout_alone(run, tmp_path):
    assert page("launch/export.py", "--run", run, "--to", tmp_path / "ours") == 0
    (exported, _), model = load_exported(tmp_path / "ours"), load_model(run).model
    with torch.no_grad():
        found = [each.logits(TOKENS, slice(None), 12) for each in (exported, model)]
    assert torch.equal(*found)
    with pytest.raises(UserError, match=r"model\.mixers"):
        page("launch/export.py", "--run", run, "--to", tmp_path / "theirs", "--layout", "huggingface")


def test_compiled_blocks_that_call_other_kernels_are_refused():
    execution, data = {"compile": True, "recurrence": "fla"}, {"train": [{"kind": "pointer_chase"}]}
    build(RunConfig, {"data": data, "execution": execution}, "a test")  # there is no recurrence
    keys = {"data": data, "model": {"layers": 2, "mixers": "ssm attention"}}
    build(RunConfig, keys | {"execution": {"compile": True}}, "a test")
    with pytest.raises(UserError, match=r"compile with execution\.recurrence fla"):
        build(RunConfig, keys | {"execution": execution}, "a test")
