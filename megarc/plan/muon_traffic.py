"""What Muon of one rank will send in a step, from the layout of parameters that DeepSpeed 0.19.8 is known to choose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from megarc.model import Record, layers, stage_bounds
from megarc.parallel import Box, Group, TensorParallel, Topology, cut, size
from megarc.plan.block_matrices import block_matrices
from megarc.train import Place, RunConfig, Sharing, matrices_of

_ALIGNED = 2  # elements of a range that a data rank owns are a multiple of it


class Traffic(NamedTuple):
    """Elements that a rank sends to others: parts of matrices to their owners, and updates back."""

    gathered: int
    returned: int


def muon_traffic(config: RunConfig, topology: Topology, rank: int) -> list[Traffic]:
    """Of rank ``rank``, in a step: of the matrices that all data ranks have, then of experts that they share out."""
    ranks, expert = topology.stage(rank), config.parallel.expert
    places = [Place(topology.place(one)["tensor"], topology.replica(one)) for one in ranks]
    cuts = [
        _records(config, topology, rank, tensor, part)
        for tensor in range(topology.tensor)
        for part in range(expert)
    ]
    records = [cuts[place.tensor * expert + place.data % expert] for place in places]
    calls = [_of_call(records, shared_out) for shared_out in ((False, True) if expert > 1 else (False,))]
    return [_traffic(call, config.parallel.zero, places, ranks.index(rank)) for call in calls]


def _of_call(records: Sequence[Mapping[str, Record]], shared_out: bool) -> list[dict[str, Record]]:
    """Those that the engine updates in one call: experts that ranks share out are a group of their own."""
    return [{name: one for name, one in held.items() if (one.experts > 1) == shared_out} for held in records]


def _traffic(records: Sequence[Mapping[str, Record]], zero: int, places: Sequence[Place], me: int) -> Traffic:
    """Of rank ``me`` of the stage, from every rank's matrices."""
    if not records[me]:
        return Traffic(0, 0)
    expert = next(iter(records[me].values())).experts
    alike = (max(place.data for place in places) + 1) // expert  # data ranks that have the same matrices
    holdings = [
        _held(held, zero, place.data // expert, alike) for held, place in zip(records, places, strict=True)
    ]
    matrices = [matrix for name in sorted(records[me]) for matrix in matrices_of(name, records[me][name])]
    sharing = Sharing(matrices, holdings, places, sharded=zero > 0)
    others = [other for other in range(len(places)) if other != me]
    return Traffic(
        sum(route.elements for other in others for route in sharing.gives(me, other)),
        sum(route.elements for other in others for route in sharing.parts(other, me)),
    )


def _records(config: RunConfig, topology: Topology, rank: int, tensor: int, expert: int) -> dict[str, Record]:
    """The matrices of this rank's stage, in the order of their parameters, as such a tensor and expert rank has
    them."""
    shared_out = Group(expert, config.parallel.expert)
    place = TensorParallel(Group(tensor, topology.tensor), topology.sequence, shared_out)
    listed = layers(config.model, config.execution, place)
    bounds, stage = stage_bounds(listed, topology.pipeline), topology.place(rank)["pipeline"]
    found = block_matrices(config.model, config.execution, place)
    return {
        f"{layer.name}.{name}": record
        for layer in listed[bounds[stage] : bounds[stage + 1]]
        if layer.name.startswith("blocks.")
        for name, record in found[config.model.kind(int(layer.name.split(".")[1]))].items()
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
