"""Every engine that runs here against the definition in float64: values and gradients."""

import pytest
import torch

from megarc.attention import ENGINES, Cache, attend, attend_cached, resolve
from megarc.errors import UserError
from megarc.window import allow

SHAPES = [(1, 1), (7, 0), (7, 3), (9, 9), (8, 1), (300, 131), (530, 257)]


def inputs(rows, batch=2, heads=4, kv_heads=2, head_dim=8, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, count, rows, head_dim) for count in (heads, kv_heads, kv_heads)]
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def defined(q, k, v, recent, documents=None):
    """The definition, with torch's softmax over a dense mask."""
    rows = torch.arange(q.shape[2])
    recents = torch.as_tensor(recent).expand(q.shape[0])
    mask = allow(rows[None, :, None], rows[None, None, :], recents[:, None, None])
    if documents is not None:
        mask = mask & (documents[:, :, None] == documents[:, None, :])
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
    assert_same(both(attend, tensors, recent, engine=engine), expected, 1e-12)


@pytest.mark.parametrize("engine", ["reference", "split_cpu"])
@pytest.mark.parametrize("recents", [[0, 3, 9], [9, 9, 9], [4, 4, 5]])
@pytest.mark.parametrize("isolated", [False, True])
def test_recent_by_sample_and_documents(engine, recents, isolated):
    tensors = inputs(9, batch=3)
    documents = torch.tensor([[0, 0, 0, 1, 1, 1, 2, 2, 2], [0] * 9, [0] + [1] * 8]) if isolated else None
    recent = torch.tensor(recents)
    expected = both(defined, tensors, recent, documents)
    assert_same(both(attend, tensors, recent, documents, engine=engine), expected, 1e-12)


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


def good():
    q, k, v = (x.detach() for x in inputs(6))
    return {"q": q, "k": k, "v": v, "recent": 2}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recent": -1}, "recent is -1"),
        ({"recent": 7}, "recent is 7"),
        ({"recent": torch.tensor([0, 7])}, "recent of a sample is 7"),
        ({"recent": torch.tensor([0.0, 1.0])}, "must be integers"),
        ({"k": torch.randn(2, 3, 6, 8).double(), "v": torch.randn(2, 3, 6, 8).double()}, "must divide"),
        ({"v": torch.randn(2, 2, 5, 8).double()}, "must agree"),
        ({"q": torch.randn(4, 6, 8).double()}, r"\[batch, heads, rows, head_dim\]"),
        ({"q": torch.randn(2, 4, 6, 8)}, "one floating dtype"),
        ({"documents": torch.zeros(2, 5, dtype=torch.long)}, "documents must be integers"),
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
