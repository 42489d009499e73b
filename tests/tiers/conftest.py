"""Small stacks on the task, whole and real: every file is written by the code that users run."""

import logging

import pytest

from megarc.config import build
from megarc.parallel import connect, disconnect, meet
from megarc.rank_environment import ALONE
from megarc.science import MAKERS
from megarc.tiers import StackConfig, StackPlan, make_rollouts, makers
from megarc.train import pretrain


def stack(folder, **changes):
    """Three tiers on iterated functions, a handful of steps each."""
    tree = {
        "folder": str(folder),
        "run": {
            "length": "3 steps",
            "device": "cpu",
            "window": {"recent": 50, "causal": 6, "stride": 6},
            "model": {"layers": 1, "hidden": 16, "heads": 2, "initial_std": 0.3, "causal_heads": 1},
            "batch": {"size": 4},
            "optimizer": {"lr": 1e-2},
            "validation": {"windows": 4},
            "logging": {"every": 1, "tensorboard": False, "peak_flops": 1e12},
        },
        "heldout": {"kind": "iterated_function", "options": {"seed": 9}, "windows": 21},
        "tiers": {
            "bottom": {
                "run": {"window": {"recent": 12}},
                "data": {"kind": "iterated_function", "options": {"seed": 0}},
                "writes": {"samples": 3, "tokens": 5, "batch": 4, "shard": 8},
            },
            "middle": {
                "data": {"kind": "iterated_function", "options": {"seed": 1}, "windows": 20},
                "reads": {"positions": "boundary"},
                "writes": {"samples": 2, "tokens": 4, "batch": 4, "shard": 8},
            },
            "top": {"data": {"kind": "iterated_function", "options": {"seed": 2}, "windows": 20}},
        },
        **changes,
    }
    return StackPlan(build(StackConfig, tree, "test"))


@pytest.fixture(scope="session")
def groups():
    logging.getLogger("megarc").setLevel(logging.WARNING)
    yield connect(meet(ALONE), "cpu")
    disconnect()


def run(plan, groups):
    """Every stage in this process."""
    for stage in plan.stages():
        if stage.script == "pretrain.py":
            pretrain(stage.config, groups, makers(MAKERS))
        else:
            make_rollouts(stage.config, groups, MAKERS)
    return plan


@pytest.fixture(scope="session")
def built(tmp_path_factory, groups):
    return run(stack(tmp_path_factory.mktemp("stack")), groups)
