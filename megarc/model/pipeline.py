"""The same layers, handed to DeepSpeed's PipelineModule: each stage builds its own alone.

What flows from stage to stage is one tuple: hidden rows, then (where rows differ in
what they see) begin and end of each row's interval of keys, [batch, rows] each.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from megarc.interval import Intervals, Seen
from megarc.model.block import Block
from megarc.model.config import ExecutionConfig, ModelConfig
from megarc.model.cost import block_parameters
from megarc.model.layers import ColumnLinear, Embedding, Norm, Positions
from megarc.model.recompute import Runner
from megarc.parallel import Groups, TensorParallel, Topology

Flow = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a stage must know beside the model: which rows bear loss, what flows beside hidden rows."""

    rows: slice
    recent: int | None  # of every sample; None: an interval of keys for each row flows

    def unpack(self, flow: Flow) -> tuple[Tensor, Seen]:
        """Hidden rows (or tokens), and what rows see."""
        return flow[0], Intervals(*flow[1:3]) if self.recent is None else self.recent


class Layer(NamedTuple):
    """One entry of the list: its canonical name, how it is built, how it takes part in the flow."""

    name: str
    build: Callable[[], nn.Module]
    run: Callable[[nn.Module, Flow], Any]
    parameters: int


def layers(
    config: ModelConfig, execution: ExecutionConfig, tensor: TensorParallel, plan: Plan
) -> list[Layer]:
    """Embedding, positions where learned, blocks, final norm, head."""
    width, ids = config.hidden, config.padded_vocabulary
    block_size = block_parameters(config)
    runner = Runner(execution)

    def embed(module: nn.Module, flow: Flow) -> Flow:
        return (module(flow[0]), *flow[1:])

    def place(module: nn.Module, flow: Flow) -> Flow:
        rows = flow[0].shape[1] * (tensor.size if tensor.sequence else 1)
        return (flow[0] + module(0, rows), *flow[1:])

    def transform(module: nn.Module, flow: Flow) -> Flow:
        x, seen = plan.unpack(flow)
        return (module(x, seen), *flow[1:])

    def final(module: nn.Module, flow: Flow) -> Tensor:
        return module(tensor.enter(flow[0])[:, plan.rows])

    def predict(module: nn.Module, hidden: Any) -> Flow:
        return hidden, module.weight  # what ``head_loss`` takes: logits never exist whole

    def block(layer: int) -> nn.Module:
        return Block(config, execution.attention, layer, tensor, runner)

    found = [Layer("embedding", partial(Embedding, ids, width, tensor), embed, ids * width)]
    if config.learned_positions is not None:
        size = config.learned_positions
        found.append(Layer("positions", partial(Positions, size, width, tensor), place, size * width))
    for number in range(config.layers):
        found.append(Layer(f"blocks.{number}", partial(block, number), transform, block_size))
    norm = partial(Norm, width, config.norm_epsilon, tensor, partial=tensor.size > 1)
    found.append(Layer("norm", norm, final, width))
    if config.tied:
        found.append(Layer("embedding", found[0].build, predict, ids * width))
    else:
        head = partial(ColumnLinear, width, ids, "readout", tensor)
        found.append(Layer("head", head, predict, ids * width))
    return found


def stage_bounds(listed: Sequence[Layer], stages: int) -> list[int]:
    """The first layer of each stage, and the end: the largest stage has as few parameters as can be.

    The head counts, though it may be tied. Every stage has a layer.
    """
    sizes = [layer.parameters for layer in listed]
    low, high = max(sizes), sum(sizes)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _fits(sizes, stages, middle) else (middle + 1, high)
    return _filled(sizes, stages, low)


def _filled(sizes: Sequence[int], stages: int, limit: int) -> list[int]:
    """Stages filled up to ``limit`` one after the other, a layer left for each of those that follow."""
    bounds, load = [0], 0
    for number, size in enumerate(sizes):
        left = stages - len(bounds)  # stages not begun yet
        if number > bounds[-1] and (load + size > limit or len(sizes) - number <= left):
            bounds.append(number)
            load = 0
        load += size
    return [*bounds, len(sizes)]


def _fits(sizes: Sequence[int], stages: int, limit: int) -> bool:
    return len(_filled(sizes, stages, limit)) <= stages + 1


def build_pipeline(
    config: ModelConfig,
    execution: ExecutionConfig,
    groups: Groups,
    plan: Plan,
    loss: Callable[[Flow, Any], Tensor],
) -> nn.Module:
    """This rank's stage, as a PipelineModule with empty parameters.

    Args:
        loss: ((hidden loss rows, the head's weight), labels) -> the scalar that the last stage minimises.
    """
    from deepspeed.pipe import LayerSpec, PipelineModule, TiedLayerSpec
    from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology

    tensor = TensorParallel.of(groups)
    listed = layers(config, execution, tensor, plan)

    class Stage(PipelineModule):
        """Layers balanced by parameters, the head counted though it may be tied."""

        def _partition_layers(self, method: str = "") -> None:
            stage = groups.pipeline.rank
            self.parts = stage_bounds(listed, self.num_stages)
            self._set_bounds(start=self.parts[stage], stop=self.parts[stage + 1])

    def spec(layer: Layer) -> Any:
        if layer.name == "embedding" and config.tied:
            # One module, used twice: what runs it is the entry's own.
            return TiedLayerSpec(
                "embedding",
                _Running,
                layer,
                forward_fn=lambda running, flow: layer.run(running.module, flow),
                tied_weight_attr="module.weight",
            )
        return LayerSpec(_Running, layer)

    topology: Topology = groups.topology
    with contextlib.redirect_stdout(io.StringIO()):  # it prints every layer
        stage = Stage(
            layers=[spec(layer) for layer in listed],
            topology=PipeModelDataParallelTopology(
                num_pp=topology.pipeline, num_mp=topology.tensor, num_dp=topology.data
            ),
            loss_fn=loss,
        )
    stage.canonical = partial(canonical, [layer.name for layer in listed])
    return stage


class _Running(nn.Module):
    """A layer that takes the flow; its parameters are those of ``module``."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.module = layer.build()
        self.run = layer.run

    def forward(self, flow: Any) -> Any:
        return self.run(self.module, flow)


def canonical(names: list[str], name: str) -> str:
    """The plain model's name of a pipeline's parameter: ``7.module.x.weight`` -> ``blocks.6.x.weight``."""
    first, rest = name.removeprefix("tied_modules.").split(".", 1)
    layer = names[int(first)] if first.isdigit() else first
    return f"{layer}.{rest.removeprefix('module.')}"
