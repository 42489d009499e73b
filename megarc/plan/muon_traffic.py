"""What Muon of one rank will send in a step, from the layout of parameters that DeepSpeed 0.19.8 is known to choose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch

from megarc.model import Record, Transformer, layers, record_of, stage_bounds
from megarc.parallel import Box, Group, TensorParallel, Topology, cut, size
from megarc.train import Place, RunConfig, Sharing, matrices_of

_ALIGNED = 2  # elements of a range that a data rank owns are a multiple of it


class Traffic(NamedTuple):
    """Elements that a rank sends to others: parts of matrices to their owners, and updates back."""

    gathered: int
    returned: int


def muon_traffic(config: RunConfig, topology: Topology, rank: int) -> Traffic:
    """Of rank ``rank``, in a step."""
    ranks = topology.stage(rank)
    places = [Place(topology.place(one)["tensor"], topology.replica(one)) for one in ranks]
    records = [_records(config, topology, rank, tensor) for tensor in range(topology.tensor)]
    holdings = [
        _held(records[place.tensor], config.parallel.zero, place.data, topology.replicas) for place in places
    ]
    matrices = [matrix for name in sorted(records[0]) for matrix in matrices_of(name, records[0][name])]
    sharing = Sharing(matrices, holdings, places, sharded=config.parallel.zero > 0)
    me = ranks.index(rank)
    others = [other for other in range(len(ranks)) if other != me]
    return Traffic(
        sum(route.elements for other in others for route in sharing.gives(me, other)),
        sum(route.elements for other in others for route in sharing.parts(other, me)),
    )


def _records(config: RunConfig, topology: Topology, rank: int, tensor: int) -> dict[str, Record]:
    """The matrices of this rank's stage, in the order of their parameters, as tensor rank ``tensor`` has them."""
    place = TensorParallel(Group(tensor, topology.tensor), topology.sequence)
    listed = layers(config.model, config.execution, place)
    bounds, stage = stage_bounds(listed, topology.pipeline), topology.place(rank)["pipeline"]
    with torch.device("meta"):
        blocks = {
            name: Transformer(one, config.execution, place).blocks[0]
            for name, one in config.model.kinds().items()
        }
    found = {
        mixer: {name: record_of(parameter) for name, parameter in block.named_parameters()}
        for mixer, block in blocks.items()
    }
    return {
        f"{layer.name}.{name}": record
        for layer in listed[bounds[stage] : bounds[stage + 1]]
        if layer.name.startswith("blocks.")
        for name, record in found[config.model.kind(int(layer.name.split(".")[1]))].items()
        if record.kind in ("hidden", "residual")
    }


def _held(records: Mapping[str, Record], zero: int, data: int, ranks: int) -> dict[str, list[Box]]:
    """What data rank ``data`` of ``ranks`` holds of a tensor rank's matrices."""
    return {
        name: boxes
        for name, start, stop in _ranges(records, zero, data, ranks)
        if (boxes := cut(records[name].boxes, start, stop))
    }


def _ranges(
    records: Mapping[str, Record], zero: int, data: int, ranks: int
) -> Iterator[tuple[str, int, int]]:
    """First element and end of each shard's range: all; a share of it (ZeRO 3); what one range of all has of it."""
    sizes = {name: size(record.boxes) for name, record in records.items()}
    multiple = _ALIGNED * ranks
    own, offset = -(-sum(sizes.values()) // multiple) * multiple // ranks, 0
    for name, elements in sizes.items():
        if zero == 0:
            yield name, 0, elements
        elif zero == 3:
            share = -(-elements // ranks)
            yield name, min(elements, data * share), min(elements, (data + 1) * share)
        else:
            first, last = data * own - offset, (data + 1) * own - offset
            yield name, max(0, min(first, elements)), max(0, min(last, elements))
        offset += elements
