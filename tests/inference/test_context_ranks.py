"""A model in use on ranks that share the rows of its windows: scores and texts are those of one process."""

import json

import numpy as np
import pytest
import torch
from support.ranks import run_jobs
from support.runs import config
from support.using import built_model, models, scores, texts

from megarc.attention import CacheShape, LayerCache
from megarc.config import build
from megarc.errors import UserError
from megarc.inference.own_rows import own_rows
from megarc.inference.shared_slots import SharedSlots
from megarc.interval import Intervals
from megarc.model import ModelConfig
from megarc.parallel import Group, TensorParallel
from megarc.parallel.tensor import ALONE
from megarc.train import RunConfig

LAYOUTS = {"context 4": {"context": 4}, "tensor 2, context 2": {"tensor": 2, "context": 2}}
TRIED = {"learned": ["tensor 2, context 2"], "sliding": ["context 4"], "experts": list(LAYOUTS)}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("use")
    jobs = [
        {
            "do": "use",
            "config": config(folder, 1, 2, parallel=LAYOUTS[layout]),
            "model": keys,
            "to": str(folder / f"{name}, {layout}"),
        }
        for name, keys in models().items()
        for layout in TRIED[name]
    ]
    run_jobs(jobs, 4, folder)
    return folder


@pytest.mark.parametrize("name", TRIED)
def test_scores_and_texts_are_those_of_one_process(found, name):
    model = built_model(build(ModelConfig, models()[name], "test"))
    ours, written = scores(model, build(RunConfig, config(found, 1, 2), "test")), texts(model)
    for layout in TRIED[name]:
        theirs = json.loads((found / f"{name}, {layout}").read_text())
        assert theirs["texts"] == written, layout
        for what, values in ours.items():
            np.testing.assert_allclose(
                theirs["scores"][what], values, rtol=2e-5, atol=1e-5, err_msg=f"{layout}: {what}"
            )
        # Two texts of one window: the keys of each are on all ranks, and no rank has more than its share.
        for rows, held in theirs["held"]:
            assert max(held) <= -(-rows // len(held)) and sum(held) == rows, layout


@pytest.mark.parametrize("rows", [1, 5, 8, 33])
def test_every_row_belongs_to_one_rank_and_what_fills_up_is_seen_by_itself_alone(rows):
    seen = Intervals.of(rows, np.array([rows // 2, 0], np.int32))
    parts = [own_rows(seen, rows, 2, Group(rank, 4), torch.device("cpu")) for rank in range(4)]
    assert sorted(number for part in parts for number in part.present) == list(range(rows))
    assert [len(part.present) for part in parts] == parts[0].held
    for part in parts:
        for place, number in enumerate(part.numbers):
            begin, end = part.seen.begin[:, place].tolist(), part.seen.end[:, place].tolist()
            if number < rows:
                assert (begin, end) == (seen.begin[:, number].tolist(), seen.end[:, number].tolist())
            else:
                assert (begin, end) == ([number] * 2, [number + 1] * 2)


def test_layers_that_keep_states_are_refused():
    with pytest.raises(UserError, match=r"model.mixers other than attention.*--context"):
        SharedSlots(
            CacheShape([LayerCache(states=((4,),))]), 1, 8, torch.float32, torch.device("cpu"), Group(0, 2)
        )


def test_models_with_recurrent_layers_are_refused_before_they_are_loaded():
    """Their losses were wrong without a word: each rank ran the recurrence over its own rows."""
    keys = build(
        ModelConfig,
        {**models()["experts"], "experts": None, "kv_heads": None, "mixers": ["attention", "ssm"]},
        "test",
    )
    with pytest.raises(UserError, match=r"2 context ranks cannot share .* model\.mixers are ssm.*--context"):
        built_model(keys, TensorParallel(ALONE, context=Group(0, 2)))
    built_model(keys, TensorParallel(ALONE))
