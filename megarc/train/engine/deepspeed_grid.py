"""Our groups under the names by which DeepSpeed asks for them."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from megarc.parallel import Group, Groups


class Grid:
    """The ``mpu`` of ``deepspeed.initialize``: "model parallel" is its word for the tensor group, "data parallel" for
    the ranks that hold the same weights: our context and data ranks."""

    def __init__(self, groups: Groups) -> None:
        self.groups = groups

    def get_data_parallel_rank(self) -> int:
        return self.groups.replicas.rank

    def get_data_parallel_world_size(self) -> int:
        return self.groups.replicas.size

    def get_data_parallel_group(self) -> Any:
        return _handle(self.groups.replicas)

    def get_model_parallel_rank(self) -> int:
        return self.groups.tensor.rank

    def get_model_parallel_world_size(self) -> int:
        return self.groups.tensor.size

    def get_model_parallel_group(self) -> Any:
        return _handle(self.groups.tensor)


def _handle(group: Group) -> Any:
    return dist.group.WORLD if group.handle is None else group.handle
