"""The optimizer of a run; whose code runs AdamW is a key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from megarc.errors import UserError
from megarc.model import record_of
from megarc.parallel import Groups
from megarc.train.config import RunConfig
from megarc.train.engine.muon import Muon
from megarc.train.engine.sharded_optimizer import ShardedOptimizer


def optimizer_of(model: nn.Module, config: RunConfig, groups: Groups) -> torch.optim.Optimizer:
    """The optimizer that the keys name; the learning rate is set anew before each step.

    Raises:
        UserError: where its library is not installed, or does not run on the groups' device.
    """
    keys = config.optimizer
    if keys.library != "torch":
        return adamw(model, config, groups.device)
    muon = Muon(keys.muon, groups, sharded=config.parallel.zero > 0) if keys.name == "muon" else None
    return ShardedOptimizer(model, keys, muon)


def adamw(model: nn.Module, config: RunConfig, device: torch.device) -> torch.optim.Optimizer:
    """The AdamW that ``optimizer.library`` names, over two groups: parameters that decay, and those that do not.

    Raises:
        UserError: where it is not installed, or does not run on ``device``.
    """
    keys = config.optimizer
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if record_of(p).decays], "weight_decay": keys.weight_decay},
        {"params": [p for p in parameters if not record_of(p).decays], "weight_decay": 0.0},
    ]
    host = device.type == "cpu" or config.parallel.offload != "none"
    make = {"torch": _torch, "apex": _apex, "deepspeed": _deepspeed}[keys.library](host)
    return make(groups, lr=keys.lr, betas=(keys.beta1, keys.beta2), eps=keys.epsilon)


def counter(adam: torch.optim.Optimizer, device: torch.device) -> torch.Tensor | int:
    """A parameter's count of steps at the start, as this AdamW keeps it."""
    return torch.zeros((), device=device) if isinstance(adam, torch.optim.AdamW) else 0


def set_counters(adam: torch.optim.Optimizer, steps: int) -> None:
    """Adam's counts of steps, for its bias correction, wherever its code keeps them."""
    for state in adam.state.values():
        if isinstance(state["step"], torch.Tensor):
            state["step"].fill_(float(steps))
        else:
            state["step"] = steps
    if type(adam).__module__.startswith("apex"):
        for group in adam.param_groups:
            group["step"] = steps


def _torch(host: bool) -> Callable[..., torch.optim.Optimizer]:
    def make(groups: Any, **keys: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, fused=True, **keys)

    return make


def _apex(host: bool) -> Callable[..., torch.optim.Optimizer]:
    try:
        from apex.optimizers import FusedAdam
    except ImportError as error:
        raise UserError(
            f"optimizer.library is apex, which cannot be imported ({error}); build it from "
            "github.com/NVIDIA/apex (the registries' apex is another thing), or use optimizer.library=torch"
        ) from None
    if host:
        raise UserError(
            "optimizer.library apex runs on a GPU only; use optimizer.library=torch on a CPU or offloaded"
        )
    return FusedAdam


def _deepspeed(host: bool) -> Callable[..., torch.optim.Optimizer]:
    """Its extension is compiled at first use: minutes."""
    from deepspeed.ops.adam import DeepSpeedCPUAdam, FusedAdam

    return DeepSpeedCPUAdam if host else FusedAdam
