"""Tiers are trained on any topology alike, with positions of their own too; but for pipelines, which refuse those."""

import pytest
from support.ranks import run_jobs
from support.runs import metrics

from megarc.config import to_dict

EXPERTS = {"count": 4, "active": 2, "bias_rate": 0.1}


def job(built, folder, experts=None, **parallel):
    tree = to_dict(built.run("middle"))  # its roll-outs continue the history's positions
    tree |= {"folder": str(folder), "parallel": parallel}
    assert (tree["window"]["recent"] + tree["window"]["causal"]) % 2 == 0  # rows to be shared out
    tree["model"] |= {"layers": 2, "experts": experts}
    return {"do": "pretrain", "config": tree, "may_fail": "pipeline" in parallel}


def test_losses_do_not_depend_on_the_topology(built, tmp_path):
    jobs = {
        "tensor": job(built, tmp_path / "tensor", tensor=2, sequence=True),
        "data": job(built, tmp_path / "data", zero=3),
        "context": job(built, tmp_path / "context", zero=1, context=2),
        "experts": job(built, tmp_path / "experts", EXPERTS, zero=1, expert=2),
        "experts, context": job(built, tmp_path / "experts, context", EXPERTS, zero=2, context=2),
        "pipeline": job(built, tmp_path / "pipeline", pipeline=2),
    }
    said = run_jobs(list(jobs.values()), 2, tmp_path)
    assert "does not flow through a pipeline" in said
    alone = {"alone": None, "experts alone": EXPERTS}
    compared = {"alone": ("tensor", "data", "context"), "experts alone": ("experts", "experts, context")}
    run_jobs([job(built, tmp_path / name, experts, zero=0) for name, experts in alone.items()], 1, tmp_path)
    for name in ("train/nats_per_token", "heldout/nats_per_token"):
        for one, others in compared.items():
            expected = metrics(tmp_path / one, name)
            assert len(expected) > 1
            for other in others:
                assert metrics(tmp_path / other, name) == pytest.approx(expected, rel=1e-5), other
