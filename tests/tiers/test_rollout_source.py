"""Windows with roll-outs are a source like any other, and show what they should."""

import numpy as np
import pytest

from megarc.data import DataConfig, SourceConfig, open_source, open_stream
from megarc.data.source import read_many
from megarc.science import MAKERS
from megarc.tiers import Rollouts, makers

EVERY = np.arange(20)


def opened(built, name="top", split=None, **changes):
    config = built.reading_source(name, split or name, **changes)
    return open_source(config, built.run(name).window.build(), makers(MAKERS))


def base_of(built, name="top"):
    return open_source(built.split(name), built.window.build(), MAKERS)


def test_a_window_is_history_then_every_roll_out_then_c(built):
    shown = opened(built, drop=0.0).read_many(EVERY).tokens
    base = base_of(built).read_many(EVERY).tokens
    bottom, middle = (Rollouts(built.prefix(name, "top")).tokens for name in ("bottom", "middle"))
    reserved = base_of(built).facts.reserved
    assert (shown[:, 50:] == base[:, 50:]).all()
    history = 50 - 3 * 7 - 2 * 6
    assert (shown[:, :history] == base[:, 50 - history : 50]).all()
    for k in EVERY:
        expected = []
        for tag, rollouts in (("<ro>", bottom), ("<spare0>", middle)):
            for one in rollouts[k].tolist():
                expected += [reserved[tag], *one, reserved["</ro>"]]
        assert shown[k, history:50].tolist() == expected


def test_weights_and_positions_are_those_of_their_rows(built):
    top, middle = opened(built).read_many(EVERY), opened(built, "middle").read_many(EVERY)
    assert (top.weights == base_of(built).read_many(EVERY).weights).all()
    assert top.positions is None
    # The boundary stands behind the history, wherever the roll-outs are.
    assert (middle.positions[:, 50:] - middle.positions[:, 50:51] == np.arange(6)).all()
    assert (middle.positions.max(1) <= middle.positions[:, 50] + 5 + 1).all()  # </ro> behind five tokens


def test_some_samples_show_fewer_roll_outs_and_the_same_ones_every_time(built):
    closing = base_of(built).facts.reserved["</ro>"]
    source = opened(built, drop=0.5)
    tokens = source.read_many(EVERY).tokens
    counts = (tokens == closing).sum(1)
    assert 0.2 < (counts < 5).mean() < 0.8 and counts.min() < 4
    assert (tokens[[7, 3]] == np.stack([source.read(7).tokens, source.read(3).tokens])).all()
    assert (opened(built, drop=0.0).read_many(EVERY).tokens == closing).sum() == 5 * 20
    assert opened(built, drop=0.5, seed=1).digest != source.digest


def test_controls_show_other_roll_outs_and_the_same_c(built):
    reserved, plain = base_of(built).facts.reserved, opened(built, drop=0.0).read_many(EVERY).tokens
    shuffled = opened(built, drop=0.0, arm="shuffled").read_many(EVERY).tokens
    filler = opened(built, drop=0.0, arm="filler").read_many(EVERY).tokens
    longer = opened(built, rollouts=[]).read_many(EVERY).tokens
    for other in (shuffled, filler, longer):
        assert (other[:, 50:] == plain[:, 50:]).all()
    assert (shuffled[:, 17:50] == np.roll(plain, 10, 0)[:, 17:50]).all()
    assert (filler[:, 17:50] == reserved["<spare9>"]).sum(1).tolist() == [3 * 5 + 2 * 4] * 20
    assert (longer[:, :50] == base_of(built).read_many(EVERY).tokens[:, :50]).all()


def test_it_blends_with_others_and_short_recent(built):
    """Where one source gives positions, the others' rows have their numbers."""
    config = DataConfig(
        train=[
            built.reading_source("middle", "middle", drop=0.0),
            SourceConfig(kind="iterated_function", options={"seed": 77}),
        ],
        short_recent=0.5,
    )
    window = built.window.build()
    batch = open_stream(config, "train", window, 0, makers=makers(MAKERS)).read(0, 64)
    plain = (batch.positions == np.arange(56)).all(1)
    assert 20 < plain.sum() < 44 and (batch.recent < 50).any()


def test_documents_of_roll_outs_are_the_boundarys(built, monkeypatch):
    class Isolated:
        """A source that knows documents: two in every window."""

        def __init__(self, inner, window):
            self.inner, self.window = inner, window
            self.digest, self.facts = inner.digest, inner.facts

        def __len__(self):
            return len(self.inner)

        def read_many(self, k):
            read = read_many(self.inner, k, self.window)
            documents = np.repeat((np.arange(56) >= 45).astype(np.int32)[None], len(k), 0)
            return type(read)(read.tokens, read.weights, documents)

        def read(self, k):
            raise NotImplementedError

    from megarc.tiers import RolloutSource

    inner = Isolated(base_of(built), built.window.build())
    rollouts = [Rollouts(path) for path in built.reading("top", "top").rollouts]
    source = RolloutSource(
        inner,
        built.window.build(),
        built.run("top").window.build(),
        rollouts,
        built.reading("top", "top", drop=0.0),
    )
    documents = source.read_many(EVERY).documents
    assert documents.shape == (20, 56)
    assert (documents[:, :12] == 0).all() and (documents[:, 12:] == 1).all()


def test_digests_tell_what_is_read_apart(built):
    sources = [
        opened(built), opened(built, arm="filler"), opened(built, positions="boundary"), opened(built, rollouts=[]),
        opened(built, "middle"), opened(built, history=1),
    ]  # fmt: skip
    assert len({source.digest for source in sources}) == len(sources)


@pytest.mark.parametrize("split", ["top", "heldout"])
def test_the_stack_reads_what_was_made_for_each_split(built, split):
    assert len(opened(built, split=split)) == {"top": 20, "heldout": 21}[split]
