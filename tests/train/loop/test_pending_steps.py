"""Steps are settled where something is due, else after seconds; all that was not read is read at once, in order."""

import pytest
import torch

from megarc.parallel import connect, disconnect, meet
from megarc.rank_environment import ALONE
from megarc.train.engine.engine import StepResult
from megarc.train.loop import pending_steps
from megarc.train.loop.observer import Moment, Observer, Vote, judgement
from megarc.train.loop.pending_steps import PendingSteps


@pytest.fixture(scope="module")
def groups():
    yield connect(meet(ALONE), "cpu")
    disconnect()


def result(loss, bad=False):
    return StepResult(
        torch.tensor(loss),
        torch.tensor(2 * loss),
        0.1,
        torch.tensor(loss),
        torch.tensor(bad),
        torch.tensor(False),
    )


class Voting(Observer):
    def __init__(self, wants):
        self.wants = wants

    def vote(self):
        return self.wants


def test_it_tells_what_became_of_each_step(groups):
    pending = PendingSteps(groups, due=lambda moment: moment.step == 3)
    for step in (1, 2, 3):
        moment = Moment(step, 9, 8 * step, skipped=4)
        pending.add(moment, [step], result(float(step), bad=step == 2))
    assert pending.due(moment)
    moment, done = pending.settle(moment, [Voting(Vote.NOTHING), Voting(Vote.LOOK)])
    assert moment == Moment(3, 9, 24, skipped=5, agreed=Vote.LOOK)
    assert [(one.step, one.samples, one.loss, one.gradient_norm) for one in done] == [
        (1, [1], 1.0, 2.0),
        (2, [2], 2.0, 4.0),
        (3, [3], 3.0, 6.0),
    ]
    assert [one.left_out for one in done] == [False, True, False]


@pytest.mark.parametrize(("step_seconds", "steps"), [(2.0, 2), (30.0, 1), (0.01, 500)])
def test_a_signal_is_heard_within_seconds(groups, monkeypatch, step_seconds, steps):
    clock = [0.0]
    monkeypatch.setattr(pending_steps.time, "monotonic", lambda: clock[0])
    pending = PendingSteps(groups, due=lambda moment: False)
    moment = Moment(1, 9999, 8)

    def until_due():
        count = 0
        while True:
            clock[0] += step_seconds
            pending.add(moment, [], result(1.0))
            count += 1
            if pending.due(moment):
                return count

    assert until_due() == 1  # the first step tells how long a step takes
    pending.settle(moment, [])
    assert until_due() == steps


def test_one_bad_judgement_is_bad(groups):
    class Judging(Observer):
        def __init__(self, limit):
            self.limit = limit

        def judge(self, loss, gradient_norm):
            return loss > self.limit

    judge = judgement([Judging(1.0), Observer(), Judging(5.0)], groups)
    assert [bool(judge(torch.tensor(loss), torch.tensor(1.0))) for loss in (0.5, 3.0, 7.0)] == [
        False,
        True,
        True,
    ]
    assert not judgement([Observer()], groups)(torch.tensor(9.0), torch.tensor(9.0))
