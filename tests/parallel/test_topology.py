import pytest
from hypothesis import given
from hypothesis import strategies as st

from megarc.errors import UserError
from megarc.parallel.topology import Topology

SIZES = st.integers(1, 5)


@given(SIZES, SIZES, SIZES, st.integers(1, 3))
def test_laid_out_as_deepspeed_does(tensor, data, pipeline, context):
    """Its data ranks are our context and data ranks: those that hold the same weights."""
    from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology

    ours = Topology(tensor, data, pipeline, context=context)
    theirs = PipeModelDataParallelTopology(num_pp=pipeline, num_mp=tensor, num_dp=data * context)
    for rank in range(ours.world):
        place, coordinates = ours.place(rank), theirs.get_coord(rank)
        assert (place["pipeline"], ours.replica(rank), place["tensor"]) == (
            coordinates.pipe,
            coordinates.data,
            coordinates.model,
        )
        assert ours.replica(rank) == place["data"] * context + place["context"]
    replicas = sorted({tuple(ours.same_weights(rank)) for rank in range(ours.world)})
    found = {"tensor": ours.groups("tensor"), "pipeline": ours.groups("pipeline"), "data": replicas}
    for dimension, axis in (("tensor", "model"), ("data", "data"), ("pipeline", "pipe")):
        expected = sorted(theirs.get_axis_comm_lists(axis)) or [[rank] for rank in range(ours.world)]
        assert sorted(map(list, found[dimension])) == expected
    assert sorted(rank for group in ours.groups("context") for rank in group) == list(range(ours.world))
    assert all(len(group) == context for group in ours.groups("context"))


def test_what_is_left_is_data_parallel():
    assert Topology.fit(24, tensor=2, pipeline=3) == Topology(2, 4, 3)
    assert Topology.fit(4, sequence=True) == Topology(1, 4, 1, sequence=False)
    assert Topology.fit(24, tensor=2, context=3) == Topology(2, 4, 1, context=3)
    with pytest.raises(UserError, match=r"6 ranks.*tensor 2 x parallel.context 2.*multiple of 4"):
        Topology.fit(6, tensor=2, context=2)
    with pytest.raises(UserError, match=r"6 ranks.*tensor 4 x parallel.pipeline 1.*multiple of 4"):
        Topology.fit(6, tensor=4)
