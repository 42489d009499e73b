"""The same layers, handed to DeepSpeed's PipelineModule: each stage builds its own alone.

Hidden rows are all that travels from stage to stage. Every stage reads the same
micro-batches, so each knows by itself what stands beside the hidden rows: which keys
rows see, positions, and on the last stage the rows that bear loss and their targets. The loss is computed
inside the module: DeepSpeed watches a module's inputs and outputs, and a parameter
that is used behind them loses its gradient (docs/parallel.md).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from torch import Tensor, nn

from megarc.errors import UserError
from megarc.interval import Seen
from megarc.model.block import Block
from megarc.model.config import ExecutionConfig, ModelConfig
from megarc.model.cost import block_parameters
from megarc.model.layers import ColumnLinear, Embedding, Positions
from megarc.model.recompute import Runner
from megarc.model.transformer import final_norm, pick_rows
from megarc.parallel import Groups, TensorParallel, Topology


class Beside(NamedTuple):
    """What a stage knows of a micro-batch beside its hidden rows.

    Attributes:
        loss: (hidden loss rows, the head's weight) -> the scalar that the last stage minimises. Logits
            never exist whole.
        rows: that bear loss: the same of every sample, or by number, as ``Transformer`` takes them.
        seen: rows of R, or the interval of keys that each row sees.
        positions: [batch, rows].
        kept: of a nested model, neurons of each group that take part.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    rows: slice | Tensor
    seen: Seen
    positions: Tensor | None = None
    kept: int | None = None


class Layer(NamedTuple):
    """One entry of the list: its canonical name, how it is built, and how it runs.

    ``run`` takes tokens (the first layer) or hidden rows, and what stands beside them.
    """

    name: str
    build: Callable[[], nn.Module]
    run: Callable[[nn.Module, Tensor, Beside], Tensor]
    parameters: int


def layers(config: ModelConfig, execution: ExecutionConfig, tensor: TensorParallel) -> list[Layer]:
    """Embedding, positions where learned, blocks, final norm, head."""
    width, ids = config.hidden, config.padded_vocabulary
    runner = Runner(execution)

    def embed(module: nn.Module, tokens: Tensor, beside: Beside) -> Tensor:
        return module(tokens)

    def place(module: nn.Module, x: Tensor, beside: Beside) -> Tensor:
        count = x.shape[1] * (tensor.size if tensor.sequence else 1)
        return x + module(0, count, beside.positions)

    def transform(module: nn.Module, x: Tensor, beside: Beside) -> Tensor:
        return module(x, beside.seen, None, beside.positions, beside.kept)

    def final(module: nn.Module, x: Tensor, beside: Beside) -> Tensor:
        return module(pick_rows(tensor.enter(x), beside.rows))

    def predict(module: nn.Module, x: Tensor, beside: Beside) -> Tensor:
        return beside.loss(x, module.weight)

    def block(layer: int) -> nn.Module:
        return Block(config, execution.attention, layer, tensor, runner)

    found = [Layer("embedding", partial(Embedding, ids, width, tensor), embed, ids * width)]
    if config.learned_positions is not None:
        size = config.learned_positions
        found.append(Layer("positions", partial(Positions, size, width, tensor), place, size * width))
    for number in range(config.layers):
        size = block_parameters(config.of_layer(number))
        found.append(Layer(f"blocks.{number}", partial(block, number), transform, size))
    found.append(Layer("norm", partial(final_norm, config, tensor), final, width))
    if config.tied:
        found.append(Layer("embedding", found[0].build, predict, ids * width))
    else:
        head = partial(ColumnLinear, width, ids, "readout", tensor)
        found.append(Layer("head", head, predict, ids * width))
    return found


def stage_bounds(listed: Sequence[Layer], stages: int) -> list[int]:
    """The first layer of each stage, and the end: the largest stage has as few parameters as can be.

    The head counts, though it may be tied. Every stage has a block: embedding and positions stay with the
    first, norm and head with the last. A stage without norms, or without matrices, would lack one of the
    optimizer's groups, and DeepSpeed all-reduces the gradient's norm once a group: other stages would wait
    for it for ever. An embedding or a head alone would also leave its ranks idle most of the time.
    """
    blocks = [number for number, layer in enumerate(listed) if layer.name.startswith("blocks.")]
    starts = [0, *blocks[1:], len(listed)]  # of the pieces that stay together
    ends = list(accumulate((layer.parameters for layer in listed), initial=0))
    sizes = [ends[end] - ends[start] for start, end in pairwise(starts)]
    low, high = max(sizes), sum(sizes)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _fits(sizes, stages, middle) else (middle + 1, high)
    return [starts[piece] for piece in _filled(sizes, stages, low)]


def _filled(sizes: Sequence[int], stages: int, limit: int) -> list[int]:
    """Stages filled up to ``limit`` one after the other, a piece left for each of those that follow."""
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


def build_pipeline(config: ModelConfig, execution: ExecutionConfig, groups: Groups) -> nn.Module:
    """This rank's stage, as a PipelineModule with empty parameters.

    Before its forward passes, ``expect`` gives it what stands beside each micro-batch's hidden rows. The last
    stage returns the loss.

    Raises:
        UserError: where a stage would lack experts that data ranks share out.
    """
    from deepspeed.pipe import LayerSpec, PipelineModule, TiedLayerSpec
    from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology

    tensor = TensorParallel.of(groups)
    listed = layers(config, execution, tensor)
    check_stage_experts(config, listed, groups.pipeline.size, groups.expert.size)
    running = Running()

    class Stage(PipelineModule):
        """Layers balanced by parameters, the head counted though it may be tied."""

        def _partition_layers(self, method: str = "") -> None:
            stage = groups.pipeline.rank
            self.parts = stage_bounds(listed, self.num_stages)
            self._set_bounds(start=self.parts[stage], stop=self.parts[stage + 1])

        def expect(self, micro_batches: Iterable[Beside]) -> None:
            """The micro-batches of the forward passes to come, in their order."""
            self._coming = iter(micro_batches)

        def forward(self, inputs: Tensor) -> Tensor:
            running.beside = next(self._coming)
            return super().forward(inputs)

    def spec(layer: Layer) -> Any:
        if layer.name == "embedding" and config.tied:
            # One module, used twice: what runs it is the entry's own.
            return TiedLayerSpec(
                "embedding",
                _StageLayer,
                layer,
                running,
                forward_fn=lambda used, x: layer.run(used.module, x, running.micro_batch()),
                tied_weight_attr="module.weight",
            )
        return LayerSpec(_StageLayer, layer, running)

    topology: Topology = groups.topology
    with contextlib.redirect_stdout(io.StringIO()):  # it prints every layer
        stage = Stage(
            layers=[spec(layer) for layer in listed],
            topology=PipeModelDataParallelTopology(
                num_pp=topology.pipeline, num_mp=topology.tensor, num_dp=topology.replicas
            ),
        )
    stage.canonical = partial(canonical, [layer.name for layer in listed])
    return stage


def check_stage_experts(config: ModelConfig, listed: Sequence[Layer], stages: int, ranks: int) -> None:
    """Experts that data ranks share out are a group of the optimizer, which every stage must have.

    Args:
        ranks: that share experts out.

    Raises:
        UserError: where a stage has none.
    """
    if ranks == 1 or config.experts is None:
        return
    for number, (start, stop) in enumerate(pairwise(stage_bounds(listed, stages))):
        blocks = [int(one.name.split(".")[1]) for one in listed[start:stop] if one.name.startswith("blocks.")]
        if not any(config.experts.at(layer) for layer in blocks):
            raise UserError(
                f"parallel.expert {ranks} with parallel.pipeline {stages}: stage {number} has layers {blocks[0] + 1} "
                f"to {blocks[-1] + 1}, none with experts, and other stages would wait for its gradients of experts for "
                "ever; use fewer stages, or other model.experts.every and dense_first"
            )


@dataclass(slots=True)
class Running:
    """The micro-batch whose forward pass runs; all layers of a stage see one such object."""

    beside: Beside | None = None

    def micro_batch(self) -> Beside:
        """What stands beside its hidden rows."""
        assert self.beside is not None, "a layer runs outside of its stage's forward pass"
        return self.beside


class _StageLayer(nn.Module):
    """A layer that takes hidden rows (the first one: tokens) alone; its parameters are those of ``module``."""

    def __init__(self, layer: Layer, running: Running) -> None:
        super().__init__()
        self.module = layer.build()
        self.run, self.running = layer.run, running

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.module, x, self.running.micro_batch())


def canonical(names: list[str], name: str) -> str:
    """The plain model's name of a pipeline's parameter: ``7.module.x.weight`` -> ``blocks.6.x.weight``."""
    first, rest = name.removeprefix("tied_modules.").split(".", 1)
    layer = names[int(first)] if first.isdigit() else first
    return f"{layer}.{rest.removeprefix('module.')}"
