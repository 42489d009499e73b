import pytest
from hypothesis import given
from hypothesis import strategies as st

from megarc.errors import UserError
from megarc.parallel.topology import Topology

SIZES = st.integers(1, 5)


@given(SIZES, SIZES, SIZES)
def test_laid_out_as_deepspeed_does(tensor, data, pipeline):
    from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology

    ours = Topology(tensor, data, pipeline)
    theirs = PipeModelDataParallelTopology(num_pp=pipeline, num_mp=tensor, num_dp=data)
    for rank in range(ours.world):
        place, coordinates = ours.place(rank), theirs.get_coord(rank)
        assert (place["pipeline"], place["data"], place["tensor"]) == (
            coordinates.pipe,
            coordinates.data,
            coordinates.model,
        )
    for dimension, axis in (("tensor", "model"), ("data", "data"), ("pipeline", "pipe")):
        expected = sorted(theirs.get_axis_comm_lists(axis)) or [[rank] for rank in range(ours.world)]
        assert sorted(ours.groups(dimension)) == expected


def test_what_is_left_is_data_parallel():
    assert Topology.fit(24, tensor=2, pipeline=3) == Topology(2, 4, 3)
    assert Topology.fit(4, sequence=True) == Topology(1, 4, 1, sequence=False)
    with pytest.raises(UserError, match=r"6 ranks.*tensor 4 x parallel.pipeline 1.*multiple of 4"):
        Topology.fit(6, tensor=4)
