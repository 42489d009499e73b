"""A start on a DeepSpeed that is wrong is refused, and says where; on a right one it costs two tiny steps, once."""

import json

import pytest
import torch
from support.ranks import run_jobs
from support.runs import config, pretrain

from megarc.config import build, load
from megarc.model import splits
from megarc.parallel import Topology
from megarc.train import RunConfig
from megarc.train.self_check.tiny_run import tiny_run, uncovered

BROKEN = {  # how: ZeRO stage, precision, what the report says
    "dropped bucket": (2, "fp32", "the gradient of "),
    "factor of dp": (2, "bf16", "2 times what it must be"),
    "factor of dp, stage 3": (3, "fp32", "2 times what it must be"),
    "skipped all-reduce": (0, "fp32", "the gradient of "),
    "skipped all-reduce, bf16": (1, "bf16", "the gradient of "),
    "wrong norm": (2, "bf16", "the norm of the whole gradient after step 1 differs"),
    "fp8 on a CPU + dropped bucket": (2, "bf16", "the gradient of "),
}
FP8 = {"execution__fp8": True}

MIXERS = {"model__mixers": "ssm crf ssm_attention attention", "model__layers": 4}


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    """Two ranks start on engines that are wrong, on right ones, and again; what they say of each start."""
    folder = tmp_path_factory.mktemp("starts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder, run_jobs(jobs(folder), 2, folder).split("-- start ")


def jobs(folder):
    def job(name, zero, precision, mode="auto", steps=2, keys=(), **more):
        keys = {"precision": precision, "health__self_check": mode, **dict(keys)}
        return {**pretrain(folder / name, zero, steps, **keys), "may_fail": True, "announce": True, **more}

    broken = [
        job(how, *where[:2], keys=FP8 if "fp8" in how else {}, **{"break": how})
        for how, where in BROKEN.items()
    ]
    return [
        *broken,
        # Before the right one, whose passed check counts for every later start on its layout.
        job("muon, halved", 2, "fp32", keys={"optimizer__name": "muon"}, **{"break": "halved Muon"}),
        job("muon, bf16, halved", 3, "bf16", keys={"optimizer__name": "muon"}, **{"break": "halved Muon"}),
        job("warned", 2, "fp32", mode="warn", **{"break": "dropped bucket"}),
        job("right", 3, "bf16"),
        job("right", 3, "bf16", steps=4),
        job("other run", 3, "bf16"),
        job("tensor", 1, "fp32", keys={"parallel__tensor": 2, "parallel__sequence": True}),
        job("pipeline", 1, "fp32", keys={"parallel__pipeline": 2}),
        job("muon", 2, "fp32", keys={"optimizer__name": "muon"}),
        job("muon, bf16", 2, "bf16", keys={"optimizer__name": "muon"}),
        job("muon, mixers", 3, "bf16", keys={"optimizer__name": "muon", **MIXERS}),
        job("fp8", 2, "bf16", keys=FP8, **{"break": "fp8 on a CPU"}),
        job("node", 3, "bf16", keys={"parallel__node": 2}),
        job("mixers", 1, "bf16", keys={"parallel__tensor": 2, "parallel__sequence": True, **MIXERS}),
    ]


def said(starts, name):
    return [text for text in starts[1] if text.startswith(f"{name}\n")]


@pytest.mark.parametrize("how", BROKEN)
def test_a_wrong_engine_is_refused(starts, how):
    zero, precision, words = BROKEN[how]
    (text,) = said(starts, how)
    assert "error: the self-check failed" in text and f"ZeRO {zero}, {precision}" in text
    assert words in text
    assert "blocks." in text or "embedding.weight" in text, "a parameter is named"
    folder = starts[0] / how
    assert not (folder / "self_check.json").exists() and not list(folder.glob("checkpoints/*"))
    assert "the self-check failed" in json.loads((folder / "state.json").read_text())["error"]


def test_a_key_lets_it_train_all_the_same(starts):
    (text,) = said(starts, "warned")
    assert "the self-check failed" in text and "The run goes on" in text and "Ending.FINISHED" in text


def test_a_right_engine_is_checked_once(starts):
    first, again = said(starts, "right")
    (other,) = said(starts, "other run")
    assert "self-check: two steps equal to one rank's" in first
    assert "self-check" not in again and "self-check" not in other
    (record,) = json.loads((starts[0] / "right" / "self_check.json").read_text()).values()
    assert record["ranks"] == 2 and record["precision"] == "bf16" and record["parallel"]["zero"] == 3


LAYOUTS = [
    "tensor",
    "pipeline",
    "muon",
    "muon, bf16",
    "muon, mixers",
    "fp8",
    "node",
    "mixers",
]


@pytest.mark.parametrize("name", LAYOUTS)
def test_other_layouts_are_checked_too(starts, name):
    (text,) = said(starts, name)
    assert "self-check: two steps equal to one rank's" in text and "Ending.FINISHED" in text


def test_off_needs_no_quotes(tmp_path):
    """YAML reads it as false, which was refused."""
    (tmp_path / "run.yaml").write_text("health: {self_check: off}")
    assert load(RunConfig, tmp_path / "run.yaml", []).health.self_check == "off"
    assert load(RunConfig, None, ["health.self_check=off"]).health.self_check == "off"


@pytest.mark.parametrize(
    ("keys", "left_out"),
    [
        ({"precision": "fp32", "model__experts": {"count": 4}}, []),
        ({"precision": "bf16", "model__experts": {"count": 4}}, ["experts (only in fp32)"]),
        ({"precision": "bf16", "optimizer__name": "muon"}, []),
        ({"optimizer__name": "muon", "optimizer__muon": {"precision": "bf16"}}, ["Muon's iteration in bf16"]),
        (
            {"optimizer__name": "muon", "model__experts": {"count": 4}},
            ["Muon's update (only without experts)"],
        ),
        ({"execution__compile": True}, ["compiled blocks"]),
        ({"precision": "bf16", **FP8}, []),
        ({"precision": "bf16", **FP8, **MIXERS}, ["fp8 products of models with recurrent layers"]),
    ],
)
def test_what_the_check_does_not_cover_is_said(tmp_path, keys, left_out):
    run = build(RunConfig, config(tmp_path, 1, 2, **keys), "test")
    assert uncovered(run, torch.device("cpu")) == left_out
    tiny = tiny_run(run, Topology.fit(2))
    assert tiny.execution.fp8 == (run.execution.fp8 and not left_out)


@pytest.mark.parametrize("name", ["muon, halved", "muon, bf16, halved"])
def test_muons_own_update_takes_part(starts, name):
    text = said(starts, name)[0]
    assert "the self-check failed" in text and "the weight of blocks." in text


@pytest.mark.parametrize("tensor", [1, 2, 3, 5, 6, 8, 12])
def test_any_number_of_tensor_ranks_shares_out_the_tiny_model(tmp_path, tensor):
    """Three ranks ended in a traceback: four heads have no third."""
    keys = {"parallel__tensor": tensor, "parallel__sequence": tensor > 1}
    run = build(RunConfig, config(tmp_path, 1, 2, **keys), "test")
    tiny = tiny_run(run, Topology.fit(tensor, tensor=tensor, sequence=tensor > 1))
    assert all(split.fits(tensor) for split in splits(tiny.model)) and tiny.window.build().rows % tensor == 0
