"""Seesaw: where the schedule halves the rate, the batch doubles and the rate falls by the root of 2; fewer steps."""

import math

import pytest

from megarc.config import build
from megarc.errors import UserError
from megarc.train import RunConfig, Timeline
from megarc.train.engine.factors import over_batch

COSINE = {"kind": "cosine", "warmup": "256 samples", "final": 0.0}
STAGES = {
    "stages": [
        {"at": "0 samples", "recent": 0, "causal": 16},
        {"at": "0.5 of run", "recent": 16, "causal": 48, "stride": 32},
    ]
}
WSD = {"kind": "wsd", "warmup": "256 samples", "decay": "0.5 of run", "final": 0.1}


def config(schedule, length="16384 samples", window=None, **batch):
    keys = {"length": length, "schedule": schedule, "batch": {"size": 16, **batch}, "window": window or {}}
    return build(RunConfig, keys, "test")


@pytest.mark.parametrize("window", [{}, STAGES], ids=["one window", "stages"])
@pytest.mark.parametrize("schedule", [COSINE, WSD], ids=["cosine", "wsd"])
def test_the_rate_over_the_root_of_the_batch_is_the_schedules(schedule, window):
    """At each sample; and the batch is twice as large with each halving of that."""
    plain = Timeline.of(config(schedule, window=window))
    found = Timeline.of(config(schedule, window=window, rate="seesaw"))
    assert len(found.batches.stages) >= 3
    seen = set()
    for step in range(found.total):
        sample, size = found.batches.samples_before(step), found.batches.size(step)
        expected = plain.learning_rate(sample // 16)
        height = found.learning_rate(step) / math.sqrt(size / 16)
        if sample >= 256:
            assert height == pytest.approx(expected, rel=0.03, abs=1e-5), (
                "its end is rounded up to whole steps"
            )
            assert height <= 1e-3 * 16 / size * 1.03 and found.learning_rate(step) <= 1e-3
        seen.add(size)
    assert seen == {16 * 2**number for number in range(len(seen))}
    assert found.samples - plain.samples < max(seen), "the same samples, up to a last step"


def test_a_cosine_takes_two_thirds_of_the_steps():
    """Of small changes the limit is 2 / pi of them; doublings, and the warm-up, come near it."""
    plain, found = Timeline.of(config(COSINE)), Timeline.of(config(COSINE, rate="seesaw"))
    assert 0.6 < found.total / plain.total < 0.7


def test_a_largest_batch_is_kept_to():
    found = Timeline.of(config(COSINE, rate="seesaw", largest=64)).batches
    assert [size for _, size in found.stages] == [16, 32, 64]


def test_rules_of_beta2_and_decay_keep_what_happens_over_tokens():
    fixed = over_batch(config(COSINE, rate="seesaw"), 4.0)
    assert fixed == (0.95, 1.0)
    tokens = over_batch(config(COSINE, rate="seesaw", beta2="tokens", decay="tokens"), 4.0)
    assert tokens.beta2 == pytest.approx(0.95**4)
    # Learning rate times decay times steps: 2 x 2 x 1/4 of those before.
    assert tokens.decay == 2.0
    assert over_batch(config(COSINE, rate="linear", decay="tokens"), 4.0).decay == 1.0


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"schedule": {"kind": "constant"}, "batch": {"rate": "seesaw"}}, "cosine or wsd"),
        ({"length": "100 steps", "batch": {"rate": "seesaw"}}, "tokens or samples"),
        ({"length": "0.5 of run", "batch": {"rate": "seesaw"}}, "tokens or samples, and it is '0.5 of run'"),
        (
            {
                "length": "4k samples",
                "schedule": {**WSD, "decay": "150 steps"},
                "batch": {"rate": "seesaw"},
            },
            "schedule.decay '150 steps' is not supported",
        ),
        ({"length": "4M tokens", "batch": {"rate": "seesaw"}, "window": STAGES}, "needs length in samples"),
        (
            {
                "length": "4k samples",
                "schedule": {**WSD, "decay": "1M tokens"},
                "batch": {"rate": "seesaw"},
                "window": STAGES,
            },
            "needs schedule.decay in samples",
        ),
        (
            {
                "length": "4k samples",
                "batch": {"rate": "seesaw", "stages": [{"at": "1k samples", "size": 32}]},
            },
            "leave",
        ),
        ({"batch": {"largest": 64}}, "leave it out"),
        ({"batch": {"beta2": "tokens"}, "optimizer": {"library": "apex"}}, "library=torch"),
    ],
)
def test_what_has_nothing_to_go_by_is_refused(keys, said):
    with pytest.raises(UserError, match=said):
        build(RunConfig, keys, "test")
