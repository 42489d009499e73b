"""Tiers are trained on any topology alike, with positions of their own too; but for pipelines, which refuse those."""

import pytest
from support.ranks import run_jobs
from support.runs import metrics

from megarc.config import to_dict


def job(built, folder, **parallel):
    tree = to_dict(built.run("middle"))  # its roll-outs continue the history's positions
    tree |= {"folder": str(folder), "parallel": parallel}
    assert (tree["window"]["recent"] + tree["window"]["causal"]) % 2 == 0  # rows to be shared out
    tree["model"]["layers"] = 2
    return {"do": "pretrain", "config": tree, "may_fail": "pipeline" in parallel}


def test_losses_do_not_depend_on_the_topology(built, tmp_path):
    jobs = {
        "tensor": job(built, tmp_path / "tensor", tensor=2, sequence=True),
        "data": job(built, tmp_path / "data", zero=3),
        "pipeline": job(built, tmp_path / "pipeline", pipeline=2),
    }
    said = run_jobs(list(jobs.values()), 2, tmp_path)
    assert "does not flow through a pipeline" in said
    run_jobs([job(built, tmp_path / "alone", zero=0)], 1, tmp_path)
    for name in ("train/nats_per_token", "heldout/nats_per_token"):
        alone = metrics(tmp_path / "alone", name)
        assert len(alone) > 1
        for other in ("tensor", "data"):
            assert metrics(tmp_path / other, name) == pytest.approx(alone, rel=1e-5)
