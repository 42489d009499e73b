"""What one rank of a run will hold, before it starts: closed forms for the state, the layers for the rest.

State by ZeRO (Rajbhandari et al. 2020, 1910.02054), as DeepSpeed 0.19.8 keeps
it: N elements of this rank, P = N / (context x data ranks) of them its own, w bytes a
weight, b the elements of ZeRO's bucket. On a GPU, stages 1 (fp32) and 2 have two buckets, except in a pipeline: one
fills while the other is reduced.

    stage           weights  masters  moments  buffers that stay      gradients
    0               wN       -        8N       -                      4N
    1, fp32         wN       4P       8P       -                      4P, and 4b while they are reduced
    1, bf16         wN       4P       8P       4N, float32 sums       wN
    2               wN       4P       8P       -                      4P, and wb while they are reduced
    3               wP       4P       8P       4P + wb, and whole    -
                                               what is small

Experts that e data ranks share out count as a part of N, an e-th of them; P does not change, since fewer ranks hold
the same ones: (N/e) / (data ranks / e).

Over several data ranks, stage 3 keeps a parameter gathered from the forward to the backward pass, where fewer elements
than ``stage3_max_reuse_distance`` (1e9) are used between the two: those of the last 5e8 elements of the model.

Activations: ``megarc.model.activation_memory``. The update copies gradients once more; Muon's: ``muon_memory.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import torch

from megarc.model import (
    ExecutionConfig,
    Footprint,
    ModelConfig,
    Transformer,
    footprint,
    layers,
    stage_bounds,
)
from megarc.parallel import Group, TensorParallel, Topology
from megarc.plan.muon_memory import alike, beside_gradients
from megarc.train import RunConfig, bucket, dtype_of, passes
from megarc.window import Window

_PERSISTENT, _REUSED = 100_000, 1_000_000_000
"""DeepSpeed's stage3_param_persistence_threshold and stage3_max_reuse_distance, where the run does not give them."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one rank.

    Attributes:
        buffers: of the engine, between steps.
        gradients: held when the update begins, beside ``buffers``.
        activations: of the micro-batches in flight, held when the first backward begins; with ZeRO 3, gathered
            parameters too.
        step: the most that a step takes at once beside all that stays.
    """

    weights: float
    masters: float
    moments: float
    buffers: float
    gradients: float
    activations: float
    step: float

    @property
    def peak(self) -> float:
        return self.weights + self.masters + self.moments + self.buffers + self.step


def predict(
    config: RunConfig,
    topology: Topology,
    rank: int = 0,
    held: Footprint | None = None,
    window: Window | None = None,
) -> Memory:
    """Of rank ``rank``; eager code: compiled, the activations are about half.

    Args:
        config: resolved.
        held: a micro-batch's footprint, where it is known already.
        window: of the step; None: the largest of the run.
    """
    config, expert = config.shared_among(topology.replicas), config.parallel.expert
    tensor = TensorParallel(Group(0, topology.tensor), topology.sequence, Group(0, expert))
    window, micro_batch = window or config.window.largest(), config.batch.micro_batch
    place = topology.place(rank)
    stage = stages_of(config.model, topology.pipeline)[place["pipeline"]]
    blocks = stage.blocks / config.model.layers
    elsewhere = stage.routed * (1 - 1 / expert)  # elements of experts that other ranks have
    n, of_group = (stage.parameters - elsewhere) / topology.tensor, stage.parameters / topology.tensor
    matrices = sum(one.elements for one in alike(config.model.model_dump_json())) * blocks
    owned = [of_group, matrices / topology.tensor]
    if config.parallel.zero == 0:
        owned = [n, (matrices - elsewhere) / topology.tensor]
    state = _state(config, n, topology, *owned)
    one = held or footprint(
        config.model, config.execution, window, micro_batch, dtype_of(config), _device(config), tensor,
        topology.context,
    )  # fmt: skip
    gathered = _gathered(config, n) if config.parallel.zero == 3 and topology.replicas > 1 else 0.0
    micro_batches = config.batch.size // (topology.data * micro_batch) * passes(config)
    flying = min(topology.pipeline - place["pipeline"], micro_batches)
    kept = one.kept * blocks * flying
    return Memory(
        weights=state.weights,
        masters=state.masters,
        moments=state.moments,
        buffers=state.buffers,
        gradients=state.gradients,
        activations=kept + one.beside + gathered,
        step=max(state.during + kept + one.top + gathered, state.update),
    )


class Stage(NamedTuple):
    """Blocks of a pipeline's stage, its parameters over all tensor ranks, and those of routed experts among them."""

    blocks: int
    parameters: int
    routed: int


def stages_of(model: ModelConfig, stages: int) -> tuple[Stage, ...]:
    """As the pipeline cuts the model."""
    return _stages_of(model.model_dump_json(), stages)


@lru_cache(maxsize=256)
def _stages_of(keys: str, stages: int) -> tuple[Stage, ...]:
    """Of a model's keys as text: lists among them cannot be remembered by."""
    model = ModelConfig.model_validate_json(keys)
    listed = layers(model, ExecutionConfig(), TensorParallel())
    found = []
    for first, last in pairwise(stage_bounds(listed, stages)):
        own = {layer.name: layer.parameters for layer in listed[first:last]}
        blocks = [int(name.split(".")[1]) for name in own if name.startswith("blocks.")]
        found.append(Stage(len(blocks), sum(own.values()), routed_elements(model, blocks)))
    return tuple(found)


def routed_elements(model: ModelConfig, numbers: Iterable[int]) -> int:
    """Of the experts that rows choose, in the layers of these numbers, over all ranks."""
    experts = model.experts
    if experts is None:
        return 0
    layer = experts.count * 3 * model.hidden * model.width_of_expert
    return sum(layer for number in numbers if experts.at(number))


class _State(NamedTuple):
    """``during``: gradients and buffers beside the activations; ``update``: beside nothing, as it updates."""

    weights: float
    masters: float
    moments: float
    buffers: float
    gradients: float
    during: float
    update: float


def state_bytes(config: RunConfig, parameters: float, matrices: float) -> float:
    """Bytes of the moments of so many parameters, and of an average of weights where one is kept.

    Args:
        matrices: how many of them are elements of the blocks' matrices, of which Muon keeps one moment.
    """
    second = parameters - (matrices if config.optimizer.name == "muon" else 0)
    return 4 * (parameters + second + (parameters if config.average.on else 0))


def _state(config: RunConfig, n: float, topology: Topology, shared: float, matrices: float) -> _State:
    """The table above, in bytes, with Muon's and an average's part.

    Args:
        shared: elements, of them ``matrices``, that the ranks of ZeRO share out; without ZeRO, those of a rank.
    """
    replicas = topology.replicas
    own = replicas if config.parallel.zero else 1
    adam = _state_of_adamw(config, n, shared / own, topology)
    moments = state_bytes(config, shared, matrices) / own
    if config.optimizer.name == "adamw":
        return adam._replace(moments=moments)
    held, owned = matrices / own, matrices / replicas
    # ZeRO copies those of the matrices once more; not with bf16 and stage 1, whose sums are flat already.
    copied = (
        0 if config.parallel.zero == 0 or (config.parallel.zero == 1 and config.precision == "bf16") else held
    )
    gradients = adam.gradients + 4 * copied
    more = beside_gradients(config, held, owned, topology.tensor * replicas, _device(config).type)
    return adam._replace(moments=moments, update=max(adam.update, gradients + more))


def _state_of_adamw(config: RunConfig, n: float, p: float, topology: Topology) -> _State:
    """The table above, in bytes."""
    data = topology.data
    wide, zero = config.precision == "bf16", config.parallel.zero
    w, b = (2 if wide else 4), bucket(config, n)
    summed = config.batch.size * passes(config) > data * config.batch.micro_batch
    earlier = w * n if summed else 0.0  # gradients of the micro-batches before
    own = 4 * p if summed else 0.0
    # Stages 1 and 2 fill one bucket while the other is reduced: on a GPU, and not in a pipeline.
    both = b * (2 if topology.pipeline == 1 and _device(config).type == "cuda" else 1)
    if zero == 0:
        return _State(w * n, 0, 8 * n, 0, 4 * n, earlier, 8 * n)
    if zero == 1 and wide:
        return _State(w * n, 4 * p, 8 * p, 4 * n, w * n, earlier, 4 * n + 4 * p)
    if zero == 1:
        return _State(w * n, 4 * p, 8 * p, 0, 4 * p, 4 * both + earlier, 4 * n + 4 * p)
    if zero == 2:
        update = 8 * p + (0 if wide or not summed else 4 * b)
        return _State(w * n, 4 * p, 8 * p, 0, 4 * p, w * both + own, update)
    buffers = 4 * p + w * b + w * _always_gathered(config)
    return _State(w * p, 4 * p, 8 * p, buffers, 0, 0, 8 * p)


def _gathered(config: RunConfig, n: float) -> float:
    """Bytes of the parameters that ZeRO 3 holds whole when the backward pass begins, beside those it always does."""
    reused = _of_stage_3(config, "max_reuse_distance", _REUSED)
    return (2 if config.precision == "bf16" else 4) * min(max(0.0, n - _always_gathered(config)), reused / 2)


def _always_gathered(config: RunConfig) -> int:
    """Elements of the matrices and gains so small that ZeRO 3 never lets them go."""
    threshold = _of_stage_3(config, "param_persistence_threshold", _PERSISTENT)
    return _small(config.model.model_dump_json(), threshold)


def _of_stage_3(config: RunConfig, name: str, default: int) -> int:
    """A setting that the run passes on to DeepSpeed."""
    return int(config.deepspeed.get("zero_optimization", {}).get(f"stage3_{name}", default))


@lru_cache(maxsize=32)
def _small(keys: str, threshold: int) -> int:
    """Elements of the parameters of at most ``threshold``, of a model of these keys."""
    model = ModelConfig.model_validate_json(keys)
    names = [model.kind(layer) for layer in range(model.layers)]
    with torch.device("meta"):
        kinds = {name: Transformer(one) for name, one in model.kinds().items()}
        blocks = {name: _few_elements(built.blocks[0], threshold) for name, built in kinds.items()}
        rest = _few_elements(kinds[names[0]], threshold) - blocks[names[0]]
    return rest + sum(blocks[name] for name in names)


def _few_elements(module: torch.nn.Module, threshold: int) -> int:
    sizes = (parameter.numel() for parameter in module.parameters())
    return sum(size for size in sizes if size <= threshold)


def _device(config: RunConfig) -> torch.device:
    here = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(here if config.device == "auto" else config.device)


# ---- for people

_ROWS = {
    "weights": "weights",
    "masters": "masters, float32",
    "moments": "moments, float32",
    "buffers": "the engine's buffers",
    "gradients": "gradients, as the update begins",
    "activations": "activations, as the backward pass begins",
    "step": "a step at its most, beside what stays",
    "peak": "at its most",
}


def memory_table(prediction: Memory, seen: Memory | None = None) -> str:
    """MiB of each part as predicted and, where a step was watched, as measured."""
    lines = [f"{'MiB of a rank':<44}{'predicted':>11}" + (f"{'measured':>11}{'ratio':>8}" if seen else "")]
    for name, meaning in _ROWS.items():
        predicted = getattr(prediction, name)
        line = f"{meaning:<44}{predicted / 2**20:>11.2f}"
        if seen is not None:
            measured = getattr(seen, name)
            ratio = f"{predicted / measured:.2f}" if measured > 0 else "-"
            line += f"{measured / 2**20:>11.2f}{ratio:>8}"
        lines.append(line)
    return "\n".join(lines)
