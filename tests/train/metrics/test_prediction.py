"""What was predicted against what is measured."""

import logging
from types import SimpleNamespace

from megarc.train.loop import Moment
from megarc.train.metrics import Prediction, prediction


def test_says_once_after_twenty_steps_and_then_in_each_line(monkeypatch, caplog):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(prediction.time, "perf_counter", lambda: clock.now)
    watch = Prediction(0.5)
    engine = SimpleNamespace(groups=SimpleNamespace(first=True))
    with caplog.at_level(logging.INFO, logger="megarc"):
        for step in (1, 11, 21, 31):
            clock.now += 10.0 if step == 1 else 10 * 0.75  # the first one compiles
            assert (watch.values() == {}) == (step <= 21)
            watch.settled(engine, Moment(step, 100, step), [])
    assert watch.values() == {"plan/step_ratio": 1.5}
    assert caplog.messages == ["a step takes 0.75 s, 0.5 s were predicted: 1.50 times"]


def test_nothing_predicted_nothing_measured():
    watch = Prediction(None)
    watch.settled(SimpleNamespace(), Moment(30, 100, 30), [])
    assert watch.values() == {} and watch.measured is None
