"""DeepSpeed told which data ranks share experts out, under the names and in the places that its own layer uses."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import nn

from megarc.model import expert_group_name
from megarc.parallel import Group, Groups


def announce_expert_ranks(model: nn.Module, count: int, groups: Groups) -> None:
    """Makes DeepSpeed 0.19.8 reduce the gradients of experts over the ranks that hold the same ones.

    Its engine looks for a module of its class ``MoE`` and asks it for the groups; nothing else of that class is used.
    """
    if groups.expert.size == 1:
        return
    from deepspeed.moe.layer import MoE
    from deepspeed.utils import groups as names

    name = expert_group_name(groups.expert.size)

    class Announcement(MoE):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.num_experts = count

        def set_deepspeed_parallelism(self, *_: Any, **__: Any) -> None:
            for ranks, handles, group in (
                (names._EXPERT_PARALLEL_GROUP_RANKS, names._EXPERT_PARALLEL_GROUP, groups.expert),
                (
                    names._EXPERT_DATA_PARALLEL_GROUP_RANKS,
                    names._EXPERT_DATA_PARALLEL_GROUP,
                    groups.expert_data,
                ),
            ):
                handle = _handle(group)
                handles.clear()  # an earlier engine's
                ranks.clear()
                handles[name], ranks[name] = handle, dist.get_process_group_ranks(handle)

    model.add_module("expert_ranks", Announcement())


def _handle(group: Group) -> Any:
    return dist.group.WORLD if group.handle is None else group.handle
