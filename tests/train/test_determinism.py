"""Steps taken twice, and from a checkpoint, are bit-equal; where they are not, the first tensor is named."""

import pytest
from support.ranks import run_jobs
from support.runs import config

LAYOUTS = {
    "fp32-z0": (0, {}),
    "fp32-z2": (2, {}),
    "bf16-z1": (1, {"precision": "bf16"}),
    "bf16-z3": (3, {"precision": "bf16"}),
    "pipeline": (1, {"parallel__pipeline": 2}),
    "tensor-muon": (1, {"parallel__tensor": 2, "optimizer__name": "muon"}),
}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    folder = tmp_path_factory.mktemp("said")
    jobs = [job(folder / name, zero, keys) for name, (zero, keys) in LAYOUTS.items()]
    jobs.append(job(folder / "files", 2, {}, **{"break": "two files"}))
    jobs.append(job(folder / "noise", 2, {}, **{"break": "noise"}))
    texts = run_jobs(jobs, 2, folder).split("-- start ")[1:]
    assert not list(folder.glob("*/determinism"))
    return {text.split("\n")[0]: text for text in texts}


def job(folder, zero, keys, **more):
    return {"do": "determinism", "config": config(folder, zero, 8, **keys), "steps": 3, **more}


@pytest.mark.parametrize("name", [*LAYOUTS, "files"])
def test_a_cpu_is_bit_equal(said, name):
    assert "steps 1 to 3, twice: bit-equal on 2 ranks" in said[name]
    assert "steps 2 to 3, from a checkpoint: bit-equal on 2 ranks" in said[name]


def test_what_differs_first_is_named(said):
    """In the first step gradients are equal before they are reduced; the norm of the reduced ones is not."""
    assert (
        "steps 1 to 3, twice: differs first at step 1 in the gradient's norm, on rank 0-1 of 2"
        in said["noise"]
    )
    assert "from a checkpoint: differs first at step 2 in " in said["noise"]
