"""Rooms that open when they are used hold the same as ever, and reading keys imports no torch."""

import subprocess
import sys
from types import FunctionType, ModuleType

import pytest

import megarc.data
import megarc.harness
import megarc.model
import megarc.plan
import megarc.report
import megarc.train
import megarc.train.engine

HEAVY = ("torch", "deepspeed", "transformers", "matplotlib")


ROOMS = [
    megarc.data, megarc.harness, megarc.model, megarc.plan, megarc.report, megarc.train, megarc.train.engine,
]  # fmt: skip


@pytest.mark.parametrize("room", ROOMS)
def test_every_door_opens_and_is_what_its_file_holds(room):
    for name in room.__all__:
        door = getattr(room, name)
        assert not isinstance(door, ModuleType), f"{name} is the file of that name"
        if isinstance(door, type | FunctionType):
            assert door.__module__.startswith("megarc."), name
    with pytest.raises(AttributeError, match="no_such_door"):
        _ = room.no_such_door


def test_a_door_may_have_another_name_than_what_it_opens():
    from megarc.data.transcripts import Segments

    assert megarc.data.SegmentsOf is Segments


def test_a_file_imported_first_does_not_hide_the_door_of_its_name():
    script = "import megarc.model.layers; from megarc.model import layers; assert callable(layers)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_keys_are_read_and_a_run_is_looked_at_without_torch():
    script = (
        "import sys\n"
        "from megarc.config import load\n"
        "from megarc.train import RunConfig\n"
        "load(RunConfig, None, ['model.vocabulary=300', 'data.train=my/train'])\n"
        "assert 'megarc.corpus' not in sys.modules, 'which keys do not need'\n"
        "from megarc.train import RunFolder, first_look\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
