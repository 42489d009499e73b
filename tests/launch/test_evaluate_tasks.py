"""`launch/evaluate.py --tasks`, the page: files of questions, under the window's mask and causally."""

import json

import pytest
from support.small_run import page

from megarc.errors import UserError


def evaluate(run, *words):
    return page("launch/evaluate.py", "--run", run, *words)


def test_scores_of_files_and_what_the_mask_gives(small_run, tmp_path, capsys):
    tasks = [small_run.parent / "choose.jsonl", small_run.parent / "cloze.jsonl"]
    found = {}
    for mask in ("window", "causal"):
        evaluate(small_run, "--tasks", *tasks, "--as", mask, "--json", tmp_path / mask)
        (found[mask],) = json.loads((tmp_path / mask).read_text())["scores"].values()
    assert "accuracy_per_character" in capsys.readouterr().out
    assert set(found["window"]["choose"]) == {"nats_per_token", "accuracy", "accuracy_per_character"}
    assert set(found["window"]["cloze"]) == {"nats_per_token", "accuracy"}
    lines = [json.loads(line) for line in (small_run / "metrics.jsonl").read_text().splitlines()]
    (logged,) = [line["tasks/cloze/nats_per_token"] for line in lines if "tasks/cloze/nats_per_token" in line]
    assert abs(found["window"]["cloze"]["nats_per_token"] - logged) < 1e-5
    assert found["window"]["cloze"]["nats_per_token"] != found["causal"]["cloze"]["nats_per_token"]


def test_what_does_not_go_together_is_refused(small_run, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "a", "choices": ["b", "c"]}\n')
    for words, said in (
        (["--tasks", bad], "no right answer"),
        (["--tasks", bad, "--corpus", tmp_path / "c"], "--tasks goes with --run alone"),
        ([], "give --corpus P, or --tasks"),
    ):
        with pytest.raises(UserError, match=said):
            evaluate(small_run, *words)
