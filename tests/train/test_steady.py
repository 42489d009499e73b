"""A run's loop costs nothing and stays as it is: waits for the device, memory over 500 steps."""

import gc

import psutil
import pytest
from support.runs import config
from support.waits import Waits

from megarc.config import build
from megarc.parallel import connect, disconnect, meet
from megarc.place import ALONE
from megarc.science import MAKERS
from megarc.train import Observer, RunConfig, pretrain

LOG = 5


@pytest.fixture(scope="module")
def groups():
    yield connect(meet(ALONE), "cpu")
    disconnect()


def train(groups, folder, steps, watch, **keys):
    tree = config(folder, 1, steps, **keys)
    tree["logging"]["every"] = LOG
    tree["data"].pop("valid")
    pretrain(build(RunConfig, tree, "test"), groups, MAKERS, watch=[watch])


class Counting(Observer):
    """Waits from after step 10 until after step 20: two lines of metrics."""

    def after_step(self, engine, moment, result):
        if moment.step == 10:
            self.waits = Waits(engine.pulse)
            self.waits.__enter__()
        if moment.step == 20:
            self.waits.__exit__(None, None, None)


def test_the_host_waits_once_a_step_where_the_update_is_decided(groups, tmp_path):
    """Health asks before each update, and there the engine looks at the norm; forward and backward never wait."""
    counting = Counting()
    train(groups, tmp_path, 22, counting)
    places = counting.waits.places
    ours = {
        place: count
        for place, count in places.items()
        if "deepspeed" not in place[1] and "runtime" not in place[1]
    }
    assert {phase for phase, _ in places} <= {"update", "observing"}, places
    assert ours.pop(("update", "train/observers.py")) == 10
    assert all(count <= 2 * 4 for count in ours.values()), places  # a few readings each log interval


class Resident(Observer):
    def __init__(self):
        self.bytes = {}

    def after_step(self, engine, moment, result):
        if moment.step in (100, 500):
            self.bytes[moment.step] = psutil.Process().memory_info().rss


def test_memory_is_flat_over_500_steps(groups, tmp_path):
    watch = Resident()
    train(groups, tmp_path, 500, watch, batch={"size": 4, "micro": 4})
    assert watch.bytes[500] < 1.01 * watch.bytes[100]
    assert gc.isenabled()
