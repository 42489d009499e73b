"""A run's loop costs nothing and stays as it is: waits for the device, memory over 500 steps."""

import gc

import psutil
import pytest
from support.runs import config
from support.waits import Waits

from megarc.config import build
from megarc.parallel import connect, disconnect, meet
from megarc.rank_environment import ALONE
from megarc.science import MAKERS
from megarc.train import Observer, RunConfig, pretrain
from megarc.train.loop import pending_steps

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
            self.waits = Waits(engine.heartbeat)
            self.waits.__enter__()
        if moment.step == 20:
            self.waits.__exit__(None, None, None)


# ZeRO 1 in bf16, ZeRO 3 and all of float32 but stage 0: DeepSpeed itself looks at the gradient's norm once a step.
@pytest.mark.parametrize(
    ("precision", "zero", "looks"),
    [("fp32", 0, 0), ("bf16", 2, 0), ("fp32", 2, 1), ("bf16", 1, 1), ("bf16", 3, 1)],
)
def test_the_host_waits_where_a_line_is_due_and_nowhere_else(
    groups, tmp_path, monkeypatch, precision, zero, looks
):
    monkeypatch.setattr(pending_steps, "_MOST_SECONDS", 1e9)  # however slow this machine is
    counting = Counting()
    train(groups, tmp_path, 22, counting, precision=precision, parallel={"zero": zero})
    places = counting.waits.places
    theirs = places.pop(("update", "runtime/utils.py"), 0)
    assert theirs == 10 * looks, places
    assert places.pop(("observing", "loop/pending_steps.py")) == 2, places
    # What else is read, is read when the device has nothing left to do.
    assert {phase for phase, _ in places} <= {"observing"} and sum(places.values()) <= 2 * 3, places


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
