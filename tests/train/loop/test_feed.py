"""Batches on their way to the device: the same tokens, through memory that is used again."""

import numpy as np
import torch

from megarc.config import build
from megarc.data import Gaps, open_stream
from megarc.parallel import Group, Groups, Topology
from megarc.science import MAKERS
from megarc.train import RunConfig, Timeline
from megarc.train.heartbeat import Heartbeat
from megarc.train.loop.feed import Slots, steps

TREE = {
    "window": {"recent": 24, "causal": 16, "stride": 16},
    "data": {"train": [{"kind": "pointer_chase"}]},
    "batch": {"size": 8, "micro": 2},
}
ALONE = Groups(*[Group(0, 1)] * 5, Topology(1, 1, 1), torch.device("cpu"))


def read(gaps):
    config = build(RunConfig, TREE, "test")
    stream = open_stream(config.data, "train", config.window.build(), 0, makers=MAKERS)
    return stream, list(
        steps(stream, ALONE, Timeline.of(config), 2, gaps, Heartbeat(), vocabulary=25, first=1, total=6)
    )


def test_tokens_are_the_stream_s_though_their_memory_is_used_again():
    stream, fed = read(Gaps.of([]))
    for step, micro_batches in enumerate(fed, start=1):
        got = torch.cat([batch.tokens for batch in micro_batches])
        assert torch.equal(got, torch.as_tensor(stream.read(8 * step, 8).tokens).long())
        assert np.array_equal(
            np.concatenate([b.samples for b in micro_batches]), np.arange(8 * step, 8 * step + 8)
        )


def test_gaps_are_stepped_over_in_the_same_memory():
    stream, fed = read(Gaps.of([[10, 13]]))
    first = torch.cat([batch.tokens for batch in fed[0]])
    expected = np.concatenate([stream.read(8, 2).tokens, stream.read(13, 6).tokens])
    assert torch.equal(first, torch.as_tensor(expected).long())


def test_slots_go_round():
    slots = Slots(3, (2, 5), torch.device("cpu"))
    first = [slots.next() for _ in range(3)]
    assert all(
        slots.next() is not None and np.shares_memory(slot, again.numpy())
        for slot, again in zip(first, slots.slots, strict=True)
    )
