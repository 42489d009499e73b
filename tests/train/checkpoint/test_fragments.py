"""What ranks write: each element stands once in every folder, and a host's folder has all that its ranks need."""

from types import SimpleNamespace

import pytest
import torch

from megarc.model import Record
from megarc.parallel import Topology, whole
from megarc.train.checkpoint import fragments
from megarc.train.checkpoint.fragments import Fragment, written

NAMES = ("embedding.weight", "blocks.0.norm", "blocks.0.matrix")


def names_of(rank, among, topology, monkeypatch, zero):
    """Of a tied embedding and a norm, which ranks hold alike, and a matrix that tensor ranks share out."""
    state = {"master": torch.ones(4)}
    records = [Record((4,), "gain", tuple(whole([4])), name.endswith("matrix")) for name in NAMES]
    parts = [Fragment(name, record, whole([4]), state) for name, record in zip(NAMES, records, strict=True)]
    monkeypatch.setattr(fragments, "held", lambda engine: parts)
    groups = SimpleNamespace(
        world=SimpleNamespace(rank=rank), topology=topology, expert=SimpleNamespace(size=1),
        data=SimpleNamespace(rank=topology.members("data", rank).index(rank)),
    )  # fmt: skip
    engine = SimpleNamespace(groups=groups, config=SimpleNamespace(parallel=SimpleNamespace(zero=zero)))
    return [part.name for part in written(engine, among)]


@pytest.mark.parametrize("zero", [0, 1])
@pytest.mark.parametrize(
    ("topology", "left_out"),
    [
        (Topology(tensor=2), ["embedding.weight", "blocks.0.norm"]),
        (Topology(pipeline=2), ["embedding.weight"]),
    ],
)
def test_of_what_ranks_hold_alike_the_first_of_each_host_writes(monkeypatch, zero, topology, left_out):
    together = [names_of(rank, (0, 1), topology, monkeypatch, zero) for rank in range(2)]
    assert together == [list(NAMES), [name for name in NAMES if name not in left_out]]
    for rank in range(2):
        assert names_of(rank, (rank,), topology, monkeypatch, zero) == list(NAMES)
