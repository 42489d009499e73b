"""Windows that change: no token a target twice in an epoch, none left out, whatever the stages and the mix."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megarc.config import build
from megarc.corpus import IndexedWriter
from megarc.data import DataConfig, Mixed, Shapes, WindowConfig, open_stream
from megarc.data.config import RecentLossConfig
from megarc.errors import UserError
from megarc.train import Lengths, RunConfig
from megarc.window import Window

STAGES = [(0, Window.plain(16)), (12, Window.split(8, 8)), (20, Window(0, 12, 4)), (32, Window(4, 20, 16))]


class Counting:
    """A source of the numbers of its tokens: token i of the text is i."""

    def __init__(self, window, tokens, name="numbers"):
        from megarc.data import Facts

        self.window, self.tokens, self.digest = window, tokens, name
        self.facts = Facts(name, tokens, vocabulary=tokens, reserved={"<spare0>": tokens - 1})

    def __len__(self):
        return self.window.count(self.tokens)

    def read(self, k):
        from megarc.data import Sample

        begin = k * self.window.stride
        return Sample(np.arange(begin, begin + self.window.tokens))


def stream(shapes, tokens=1000, which="train", hide=None, seed=3):
    config = build(DataConfig, {which: [{"kind": "numbers"}]}, "test")
    makers = {"numbers": lambda _, window: Counting(window, tokens)}
    return open_stream(config, which, shapes.own, seed, makers=makers, shapes=shapes, hide=hide)


def targets(batch, window):
    """How often each token is a target."""
    weights = np.ones((len(batch.tokens), window.stride)) if batch.weights is None else batch.weights
    return Counter(batch.tokens[:, 1:][:, -weights.shape[1] :][weights > 0].tolist())


@st.composite
def runs(draw):
    """Stages of one or several n, that begin where a chunk does; steps of whole chunks; an epoch's chunks."""
    chunk = draw(st.sampled_from([4, 6, 12]))
    divisors = [part for part in range(1, chunk + 1) if chunk % part == 0]
    stages, sample = [], 0
    strides = draw(st.lists(st.sampled_from(divisors), max_size=3))
    for stride in draw(st.permutations([chunk, *strides])):
        causal = stride + draw(st.integers(0, 5))
        stages.append((sample, Window(draw(st.integers(0, 7)), causal, stride)))
        sample += draw(st.integers(1, 9)) * (chunk // stride)
    return stages


@settings(max_examples=40, deadline=None)
@given(runs(), st.integers(0, 99), st.integers(1, 7))
def test_stages_predict_each_token_once_an_epoch(run, seed, micro):
    shapes = Shapes.staged(run)
    read = stream(shapes, 400, seed=seed)
    chunks = shapes.grid.count(400)
    first = shapes.grid.first_target
    found: Counter = Counter()
    sample, last = 0, read.shapes.pieces[-1]
    stop = last.sample + (chunks - last.place) * last.parts  # the end of the first epoch
    while sample < stop:
        piece = shapes.piece(sample)
        count = int(min(micro, stop - sample, shapes.end(piece) - sample))
        batch = read.read(sample, count)
        assert batch.tokens.shape == (count, piece.window.tokens)
        assert (np.diff(batch.tokens, axis=1) == 1).all(), "a window is a piece of the text"
        assert (batch.recent == piece.window.recent).all()
        found += targets(batch, piece.window)
        sample += count
    assert found == Counter(range(first, first + chunks * shapes.grid.stride))
    assert shapes.place(stop) == chunks


def test_one_stage_is_the_plain_window_bit_for_bit():
    window = Window(8, 8, 8)
    plain, staged = stream(Shapes.one(window)), stream(Shapes.staged([(0, window)]))
    ours, theirs = plain.read(5, 7), staged.read(5, 7)
    assert np.array_equal(ours.tokens, theirs.tokens) and np.array_equal(ours.recent, theirs.recent)


def test_what_was_read_does_not_depend_on_how_it_was_asked_for():
    read = stream(Shapes.staged(STAGES))
    whole = [read.read(first, 4).tokens for first in range(0, 48, 4)]
    for first in range(0, 48, 2):
        out = np.empty((2, 40), dtype=np.int32)
        batch = read.read(first, 2, out=out)
        assert np.array_equal(batch.tokens, whole[first // 4][first % 4 : first % 4 + 2])
        assert np.shares_memory(batch.tokens, out)
    with pytest.raises(UserError, match="lie in two"):
        read.read(10, 4)


def test_held_out_targets_are_the_same_in_every_stage():
    read = stream(Shapes.staged(STAGES), 200, "valid")
    found = []
    for sample in (0, 13, 21, 40):
        view = read.held_out(sample)
        assert view.window == read.shapes.piece(sample).window
        found.append(targets(view.read(0, len(view)), view.window))
    assert found[0] == found[1] == found[2] == found[3] and set(found[0].values()) == {1}


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(0, 12), st.integers(0, 12), st.floats(0.05, 0.9), st.integers(0, 9))
def test_a_mix_predicts_what_lies_behind_each_r_and_no_token_twice(causal, own, other, share, seed):
    rows = own + causal
    other = min(other, rows - 1)
    shapes = Shapes.mixed(Window.split(own, causal), [Mixed(share, other)])
    read = stream(shapes, 600, seed=seed)
    batch = read.read(0, shapes.grid.count(600))
    assert max(targets(batch, shapes.grid).values()) == 1
    row = np.arange(rows)[-batch.weights.shape[1] :]
    assert np.array_equal(batch.weights > 0, row[None, :] >= batch.recent[:, None])
    assert set(batch.recent) <= {own, other}


def test_shares_of_a_mix_are_drawn_by_sample():
    mix = [Mixed(0.5, 0), Mixed(0.25, 4)]
    read = stream(Shapes.mixed(Window.split(8, 8), mix))
    recent = read.read(0, 8000).recent
    for size, share in ((0, 0.5), (4, 0.25), (8, 0.25)):
        assert abs((recent == size).mean() - share) < 0.02
    assert np.array_equal(read.read(100, 5).recent, recent[100:105])


@pytest.mark.parametrize("shapes", [Shapes.one(Window(8, 8, 4)), Shapes.staged([*STAGES]),
                                    Shapes.mixed(Window.split(8, 8), [Mixed(0.5, 0)])])  # fmt: skip
def test_hidden_tokens_of_r_are_shown_nowhere_and_predicted_by_the_row_before(shapes):
    hide = build(RecentLossConfig, {"share": "1/2", "mask": 0.5, "weight": 0.25}, "test")
    read, plain = stream(shapes, hide=hide), stream(shapes)
    some = 0
    for first in range(0, 48, 4):
        batch, bare = read.read(first, 4), plain.read(first, 4)
        rows = batch.tokens.shape[1] - 1
        assert np.array_equal(batch.tokens, bare.tokens)
        inputs = batch.tokens[:, :-1] if batch.inputs is None else batch.inputs
        hidden = inputs != batch.tokens[:, :-1]
        assert (inputs[hidden] == 999).all()
        where = np.argwhere(hidden)
        assert all(1 <= row < batch.recent[sample] for sample, row in where)
        weights = np.zeros((4, rows), dtype=np.float32)
        width = read.shapes.piece(first).window.stride if bare.weights is None else bare.weights.shape[1]
        weights[:, -width:] = 1.0 if bare.weights is None else bare.weights
        weights[where[:, 0], where[:, 1] - 1] = 0.25
        assert np.array_equal(batch.weights, weights)
        some += len(where)
    assert some > 20


def test_a_causal_model_hides_what_r_hides_where_tokens_of_the_context_are_hidden():
    """Inputs and weights are those of [R | C] with the same loss rows; only the mask differs."""
    hide = {"share": "1/2", "mask": 0.5, "weight": 0.25}
    split = [(0, Window.plain(16)), (8, Window.split(8, 8))]
    causal = [(0, Window.plain(16)), (8, Window(0, 16, 8))]
    ours = stream(Shapes.staged(split), hide=build(RecentLossConfig, hide, "test"))
    control = stream(Shapes.staged(causal), hide=build(RecentLossConfig, {**hide, "rows": "context"}, "test"))
    some = 0
    for first in range(0, 48, 8):
        one, other = ours.read(first, 8), control.read(first, 8)
        assert (one.recent > 0).all() == (first >= 8) and not other.recent.any()
        assert np.array_equal(one.weights, other.weights) and (one.inputs is None) == (other.inputs is None)
        if one.inputs is not None:
            assert first >= 8 and np.array_equal(one.inputs, other.inputs)
            some += (one.inputs != one.tokens[:, :-1]).sum()
    assert some > 20


def test_tokens_of_all_rows_are_hidden_where_the_key_says_so():
    hide = {"share": 1.0, "mask": 0.5, "weight": 0.25, "rows": "all"}
    batch = stream(Shapes.one(Window(0, 16, 8)), hide=build(RecentLossConfig, hide, "test")).read(0, 40)
    hidden = batch.inputs != batch.tokens[:, :-1]
    assert not hidden[:, 0].any() and abs(hidden[:, 1:].mean() - 0.5) < 0.08
    wanted = np.where(np.arange(16) < 8, 0.0, 1.0) * np.ones((40, 1))
    wanted[:, :-1][hidden[:, 1:]] = 0.25
    assert np.array_equal(batch.weights, wanted)


def test_amounts_follow_the_stages():
    shapes = Shapes.staged(STAGES)
    assert [shapes.predicted(sample) for sample in (0, 12, 20, 32, 34)] == [0, 192, 256, 304, 336]
    assert [shapes.processed(sample) for sample in (12, 20, 32)] == [192, 320, 464]
    for tokens in (1, 16, 17, 192, 193, 256, 300, 305, 1000):
        sample = shapes.samples_of(tokens, lambda window: window.stride)
        assert shapes.predicted(sample - 1) < tokens <= shapes.predicted(sample)
    mixed = Shapes.mixed(Window.split(8, 8), [Mixed(0.5, 0)])
    assert mixed.predicted(10) == 120 and mixed.processed(10) == 160


def run(**keys):
    tree = {
        "length": "100 steps",
        "batch": {"size": 8},
        "data": {"train": [{"kind": "pointer_chase"}]},
        **keys,
    }
    return build(RunConfig, tree, "test")


CAUSAL, SPLIT = {"recent": 0, "causal": 32}, {"recent": 16, "causal": 16}


@pytest.mark.parametrize(
    ("length", "at", "step"),
    [
        ("100 steps", "0.8 of run", 80),
        ("800 samples", "0.8 of run", 80),
        ("100 steps", "641 samples", 81),
        ("100 steps", "33 steps", 33),
        ("25600 tokens", "0.8 of run", 80),  # predicted: a sample of the first stage is 32
        ("100 steps", "20480 tokens", 80),
        ("100 steps", "20480 processed tokens", 80),
    ],
)
def test_a_stage_begins_with_a_step(length, at, step):
    config = run(length=length, window={"stages": [{"at": "0 samples", **CAUSAL}, {"at": at, **SPLIT}]})
    assert [piece.sample for piece in Lengths(config).shapes.pieces] == [0, 8 * step]
    assert config.window.build() == Window(16, 16, 16)  # as the model is used afterwards
    if length == "25600 tokens":  # 80 steps of 256 predicted tokens, then of 128
        assert Lengths(config).total == 80 + 40


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"window": {"stages": [{"at": "1 samples", **CAUSAL}]}}, "must begin at '0 samples'"),
        ({"window": {"stages": [{"at": "0 samples", **CAUSAL}, {"at": "9 steps", "recent": 0, "causal": 24}]}},
         "must divide the largest"),
        ({"window": {"stages": [{"at": "0 samples", **CAUSAL}, {"at": "9 steps", **SPLIT}]}, "batch": {"size": 9}},
         "multiple of 2"),
        ({"window": {"recent": 9, "stages": [{"at": "0 samples", **CAUSAL}]}}, "leave window.recent out"),
        ({"window": {**SPLIT, "mix": [{"share": 0.7, "recent": 0}, {"share": 0.4, "recent": 8}]}}, "sum to 1.1"),
        ({"window": {**SPLIT, "mix": [{"share": "1/2", "recent": 32}]}}, "31 at most"),
        ({"window": {"mix": [{"share": 0.5, "recent": 0}], "stages": [{"at": "0 samples", **CAUSAL}]}},
         "not supported"),
        ({"window": CAUSAL, "objective": {"recent": {}}}, "objective.recent"),
        ({"window": CAUSAL, "objective": {"recent": {"rows": "context"}}}, "2 rows without a loss"),
        ({"window": SPLIT, "objective": {"recent": {"share": "one"}}}, "not a share"),
        ({"window": {**SPLIT, "mix": [{"share": 0.5, "recent": 0}]}, "data": {"short_recent": 0.1}}, "short_recent"),
        ({"window": {**SPLIT, "mix": [{"share": 0.5, "recent": 0}]},
          "batch": {"size": 32, "unit": "predicted tokens"}}, "use batch.unit=samples"),
        ({"window": {"stages": [{"at": "0 samples", **CAUSAL}, {"at": "9 steps", **SPLIT}]},
          "batch": {"size": 8, "stages": [{"at": "1k tokens", "size": 16}]}}, "begin at samples"),
    ],
)  # fmt: skip
def test_what_makes_no_run_is_refused(keys, words):
    with pytest.raises(UserError, match=words):
        assert Lengths(run(**keys)).shapes


def test_a_stage_before_the_one_in_front_of_it_is_refused():
    stages = [{"at": "0 samples", **CAUSAL}, {"at": "50 steps", **SPLIT}, {"at": "10 steps", **CAUSAL}]
    with pytest.raises(UserError, match=r"window.stages\[2\] .* no later"):
        assert Lengths(run(window={"stages": stages})).shapes


def test_the_token_that_hides_must_be_known():
    shapes, hide = Shapes.one(Window.split(8, 8)), {"token": "<mask>"}
    with pytest.raises(UserError, match="'<mask>', which numbers does not reserve"):
        stream(shapes, hide=build(RecentLossConfig, hide, "test"))
    with pytest.raises(UserError, match="1000, and the data has 1000 tokens"):
        stream(shapes, hide=build(RecentLossConfig, {"token": 1000}, "test"))


def test_a_window_without_stages_or_mix_is_one():
    assert not WindowConfig().changes and WindowConfig().all() == [Window(512, 512, 512)]


def test_an_id_beyond_the_vocabulary_is_found_at_its_token_in_every_stage(tmp_path):
    tokens = np.arange(400) % 50
    tokens[13::17] = 60 + np.arange(len(tokens[13::17]))
    with IndexedWriter(tmp_path / "c", np.uint16) as writer:
        writer.add(tokens)
        writer.finish()
    config = build(DataConfig, {"train": [{"path": str(tmp_path / "c")}]}, "test")
    shapes = Shapes.staged(STAGES)
    read = open_stream(config, "train", shapes.own, 3, shapes=shapes)
    found = set()
    for first in range(0, 60, 4):
        batch = read.read(first, 4)
        if batch.tokens.max() < 50:
            continue
        with pytest.raises(UserError) as raised:
            read.check_ids(batch, 50)
        bad, token = re.search(r"holds the id (\d+) at place \d+, token (\d+)", str(raised.value)).groups()
        assert int(token) == 13 + 17 * (int(bad) - 60)
        found.add(read.shapes.piece(first).window)
    assert len(found) == 4
