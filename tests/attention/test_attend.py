"""Every engine that runs here against the definition in float64: values and gradients."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megarc.attention import ENGINES, Cache, attend, attend_cached, cpu_whole, resolve
from megarc.attention.mask import keys_of_rows, rows_of_keys
from megarc.errors import UserError
from megarc.interval import Intervals
from megarc.window import allow

SHAPES = [(1, 1), (7, 0), (7, 3), (9, 9), (8, 1), (300, 131), (530, 257)]


def inputs(rows, batch=2, heads=4, kv_heads=2, head_dim=8, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, count, rows, head_dim) for count in (heads, kv_heads, kv_heads)]
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def defined(q, k, v, mask):
    """The definition, with torch's softmax over a dense mask; a number is a plain window's R."""
    if isinstance(mask, int):
        rows = torch.arange(q.shape[2])
        mask = allow(rows[:, None], rows, mask)[None]
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return scores.masked_fill(~mask[:, None], float("-inf")).softmax(-1) @ v


def both(function, tensors, *rest, **more):
    """Values and gradients, for a random gradient of the output."""
    out = function(*tensors, *rest, **more)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(9)).to(out.dtype)
    return [out, *torch.autograd.grad((out * weight).sum(), tensors)]


def assert_same(found, expected, tolerance):
    for one, other in zip(found, expected, strict=True):
        assert (one.double() - other.double()).abs().max() <= tolerance * (1 + other.abs().max())


@pytest.mark.parametrize("engine", ["reference", "split_cpu", "auto"])
@pytest.mark.parametrize(("rows", "recent"), SHAPES)
def test_one_recent(engine, rows, recent):
    tensors = inputs(rows)
    expected = both(defined, tensors, recent)
    for most in (0, cpu_whole.MOST_ROWS):
        with small_windows(most):
            assert_same(both(attend, tensors, recent, engine=engine), expected, 1e-12)


@contextmanager
def small_windows(most):
    """On a CPU windows of at most ``most`` rows may be taken whole; 0: all are cut into pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_whole, "MOST_ROWS", most)
        yield


def allowed_pairs(batch, sliding):
    """Pair by pair, from documents given as (rows, rows of R): the words of docs/window.md, in Python."""
    rows = sum(length for length, _ in batch[0])
    mask = torch.zeros(len(batch), rows, rows, dtype=torch.bool)
    for sample, documents in enumerate(batch):
        first = 0
        for length, recent in documents:
            for q in range(first, first + length):
                for k in range(first, first + length):
                    sees = k < first + recent or k <= q
                    mask[sample, q, k] = sees and (sliding is None or k > q - sliding)
            first += length
    return mask


def seen_of(batch, sliding=None):
    """The same as intervals."""
    rows = sum(length for length, _ in batch[0])
    numbers, ends = [], []
    for documents in batch:
        lengths = [length for length, _ in documents]
        firsts = np.cumsum([0, *lengths[:-1]])
        numbers.append(np.repeat(np.arange(len(lengths)), lengths))
        ends.append(np.repeat(firsts + [recent for _, recent in documents], lengths))
    arrays = (np.stack(part).astype(np.int32) for part in (numbers, ends))
    made = Intervals.of(rows, np.zeros(len(batch), np.int32), *arrays, sliding)
    return made.map(torch.as_tensor)


@st.composite
def packed(draw):
    """A batch of rows packed with documents, each with an R of its own: empty, whole, of one row."""
    rows, batch = draw(st.integers(1, 90)), []
    for _ in range(draw(st.integers(1, 3))):
        borders = sorted(draw(st.sets(st.integers(1, rows), max_size=8)) | {rows})
        lengths = [last - first for first, last in zip([0, *borders], borders, strict=False)]
        batch.append([(length, draw(st.integers(0, length))) for length in lengths])
    return batch, draw(st.none() | st.integers(1, rows))


@settings(max_examples=60, deadline=None)
@given(packed())
def test_intervals_are_exact(case):
    """R by document, by sample, sliding windows: against the definition in float64, forward and backward."""
    batch, sliding = case
    mask, seen = allowed_pairs(batch, sliding), seen_of(batch, sliding)
    assert seen.pairs() == int(mask.sum())
    tensors = inputs(mask.shape[1], batch=len(batch))
    expected = both(defined, tensors, mask)
    for engine, most in (("reference", 0), ("split_cpu", 0), ("split_cpu", cpu_whole.MOST_ROWS)):
        with small_windows(most):
            assert_same(both(attend, tensors, seen, engine=engine), expected, 1e-12)


@settings(max_examples=60, deadline=None)
@given(packed(), st.integers(1, 40))
def test_what_tiles_meet(case, size):
    """Of tiles of rows and of keys: where the mask is empty, and where it is full."""
    mask, seen = allowed_pairs(*case), seen_of(*case)
    rows = mask.shape[1]
    for reach, pairs in (
        (keys_of_rows(seen.begin, seen.end, size), mask),
        (rows_of_keys(seen.begin, seen.end, rows, size), mask.mT),
    ):
        for sample in range(len(mask)):
            for tile, first in enumerate(range(0, rows, size)):
                met = pairs[sample, first : first + size]
                some, full = met.any(0).nonzero()[:, 0], met.all(0).nonzero()[:, 0]
                low, full_low, full_high, high = (
                    int(end[sample, tile]) for end in (reach.low, reach.full_low, reach.full_high, reach.high)
                )
                assert (low, high) == (int(some[0]), int(some[-1]) + 1)
                assert full.tolist() == list(range(full_low, full_high))


@pytest.mark.parametrize("sliding", [None, 100])
def test_long_documents_on_the_cpu(sliding):
    """Longer than a chunk, with short ones between: every kind of piece."""
    one = [(310, 131), (1, 0), (3, 3), (60, 7), (5, 0), (130, 0), (1, 1)]
    batch = [one, one, one[::-1], [(510, 300)]]
    mask, seen = allowed_pairs(batch, sliding), seen_of(batch, sliding)
    tensors = inputs(510, batch=4, heads=2, kv_heads=1)
    assert_same(both(attend, tensors, seen, engine="split_cpu"), both(defined, tensors, mask), 1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("engine", ["reference", "split_cpu"])
def test_lower_precisions(engine, dtype, tolerance):
    tensors = inputs(70, dtype=dtype)
    exact = both(defined, [x.detach().double().requires_grad_() for x in tensors], 33)
    assert_same(both(attend, tensors, 33, engine=engine), exact, tolerance)


def test_other_strides_and_scale():
    q, k, v = (x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for x in inputs(12))
    plain = attend(q * 3.0 * 8**0.5, k, v, 5, engine="reference")
    assert torch.allclose(attend(q, k, v, 5, scale=3.0), plain)


def test_nan_goes_through():
    q, k, v = (x.detach() for x in inputs(6))
    k[0, 0, 2] = float("nan")
    out = attend(q, k, v, 0)
    assert out[0, :2, 2:].isnan().all() and out[0, :, :2].isfinite().all() and out[1].isfinite().all()


@pytest.mark.parametrize("recent", [0, 4])
def test_cached_rows_equal_the_whole(recent):
    q, k, v = (x.detach() for x in inputs(11))
    whole = attend(q, k, v, recent)
    cache = Cache(1, 2, 2, 11, 8, torch.float64, "cpu")
    found = []
    for rows in (slice(0, 5), slice(5, 6), slice(6, 9), slice(9, 11)):
        keys, values = cache.append(0, k[:, :, rows], v[:, :, rows])
        found.append(attend_cached(q[:, :, rows], keys, values, recent))
    assert cache.length == 11
    assert torch.allclose(torch.cat(found, 2), whole)
    with pytest.raises(UserError, match="no room for row 12"):
        cache.append(0, k[:, :, :1], v[:, :, :1])


ZEROS = torch.zeros(2, 6, dtype=torch.int32)


def good():
    q, k, v = (x.detach() for x in inputs(6))
    return {"q": q, "k": k, "v": v, "seen": 2}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seen": -1}, "recent is -1"),
        ({"seen": 7}, "recent is 7"),
        ({"seen": Intervals(ZEROS, ZEROS.long() + 6)}, "must be int32"),
        ({"seen": Intervals(ZEROS[:, :5], ZEROS[:, :5] + 6)}, "must be int32 of shape"),
        ({"seen": Intervals(ZEROS, ZEROS + 7)}, "row < end <= rows"),
        ({"seen": Intervals(ZEROS, ZEROS + 5)}, "row < end <= rows"),
        ({"seen": Intervals(ZEROS, torch.tensor([[6, 5, 6, 6, 6, 6]] * 2, dtype=torch.int32))}, "may fall"),
        ({"k": torch.randn(2, 3, 6, 8).double(), "v": torch.randn(2, 3, 6, 8).double()}, "must divide"),
        ({"v": torch.randn(2, 2, 5, 8).double()}, "must agree"),
        ({"q": torch.randn(4, 6, 8).double()}, r"\[batch, heads, rows, head_dim\]"),
        ({"q": torch.randn(2, 4, 6, 8)}, "one floating dtype"),
        ({"engine": "warp"}, "no attention engine 'warp'"),
    ],
)
def test_what_does_not_fit_is_refused(change, said):
    with pytest.raises(UserError, match=said):
        attend(**{**good(), **change})


def test_the_choice_is_told(caplog):
    caplog.set_level("INFO")
    assert resolve("auto", "cpu", torch.float32, 64) == "split_cpu"
    assert "attention engine: split_cpu" in caplog.text
    assert "reference" in ENGINES
