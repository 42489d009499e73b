import pytest

from megarc.errors import UserError
from megarc.parallel import place_from_environment

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "h", "MASTER_PORT": "29500"}


def test_alone():
    place = place_from_environment({})
    assert (place.rank, place.world, place.master) == (0, 1, None)


def test_torchrun_and_deepspeed():
    place = place_from_environment({**TORCHRUN, "TORCHELASTIC_RUN_ID": "x"})
    assert (place.rank, place.world, place.local_rank, place.master) == (3, 8, 1, "h:29500")
    assert place.launcher == "torchrun"
    assert place_from_environment(TORCHRUN).launcher == "deepspeed"


@pytest.mark.parametrize(
    "change", [{"RANK": "8"}, {"RANK": "x"}, {"LOCAL_RANK": ""}, {"MASTER_PORT": ""}, {"WORLD_SIZE": "0"}]
)
def test_half_an_environment_is_refused(change):
    with pytest.raises(UserError):
        place_from_environment({**TORCHRUN, **change})
