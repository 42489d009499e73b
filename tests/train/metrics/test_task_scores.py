"""Scores on tasks while a run goes on: the same on every layout of ranks, and those of the saved model."""

import json

import pytest
import torch
from support.ranks import run_jobs
from support.runs import metrics
from support.small_run import key_words, keys_tree, page

from megarc.corpus import load_tokenizer
from megarc.data import read_task
from megarc.errors import UserError
from megarc.inference import Sampling, Writing, likelihoods, write
from megarc.train import load_model

NAMES = [
    "choose/nats_per_token",
    "choose/accuracy",
    "choose/accuracy_per_character",
    "cloze/nats_per_token",
    "cloze/accuracy",
]


@pytest.fixture(scope="module")
def run(small_run):
    return small_run


@pytest.fixture(scope="module")
def tasks(run):
    return [run.parent / "choose.jsonl", run.parent / "cloze.jsonl"]


def test_scores_are_those_of_the_saved_model(run, tasks):
    saved, tokenizer = load_model(run), load_tokenizer("bytes")
    window = saved.config.window.build()
    for path in tasks:
        task = read_task(path, tokenizer, tokenizer.end_of_document)
        found = likelihoods(saved.model, task.pairs, window)
        for name, value in task.results([one.nats for one in found], [one.greedy for one in found]).items():
            (logged,) = metrics(run, f"tasks/{task.name}/{name}")
            assert abs(logged - value) < 1e-5
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    assert {f"tasks/{name}" for name in NAMES} <= set(board.Tags()["scalars"])


def test_every_layout_of_ranks_gives_the_same(run, tasks, tmp_path):
    """Data ranks under ZeRO 3, tensor ranks with sequence parallel, pipeline stages, context ranks; and tensor ranks
    that write."""
    layouts = {
        "zero3": {"zero": 3},
        "tensor": {"tensor": 2, "sequence": True, "zero": 1},
        "pipeline": {"pipeline": 2, "zero": 1},
        "context": {"context": 2, "zero": 1},
    }
    jobs = []
    for name, parallel in layouts.items():
        tree = keys_tree(run.parent, tmp_path / name)
        tree["parallel"], tree["batch"] = parallel, {"size": 4, "micro": 2}
        tree["validation"] = {"windows": 4, "tasks": [str(path) for path in tasks], "tasks_every": "2 steps"}
        jobs.append({"do": "pretrain", "config": tree})
    jobs.append(
        {"do": "write", "config": jobs[1]["config"], "run": str(run), "to": str(tmp_path / "texts.json")}
    )
    run_jobs(jobs, 2, tmp_path)
    for name in layouts:
        for metric in NAMES:
            one, other = (metrics(folder, f"tasks/{metric}") for folder in (run, tmp_path / name))
            assert torch.allclose(one, other, atol=1e-5), (name, metric)
    model, expected = load_model(run), []
    for sampling in (Sampling(temperature=0), Sampling(min_p=0.01)):
        texts = [Writing([65 + n] * (n + 1), 9, n) for n in range(8)]
        list(write(model.model, texts, model.config.window.build(), sampling))
        expected += [text.ids for text in texts]
    assert json.loads((tmp_path / "texts.json").read_text()) == expected


def test_tasks_that_are_wrong_are_refused_before_the_run_begins(run, tmp_path, tasks):
    bad = tmp_path / "choose.jsonl"
    bad.write_text('{"prompt": "1+1=", "choices": ["2", "3"], "answer": 5}\n')
    words = [*key_words(run.parent, tmp_path / "new")]
    for given, said in (
        ([bad], "line 1: no right answer"),
        ([tasks[0], tasks[0]], "two files have one name"),
    ):
        with pytest.raises(UserError, match=said):
            page("launch/pretrain.py", *words, f"validation.tasks=[{','.join(map(str, given))}]")
    assert not (tmp_path / "new" / "checkpoints").exists()
