"""Nested widths: each is a dense model of its own, and which neurons it has depends on no number of ranks."""

from fractions import Fraction
from itertools import pairwise

import pytest
import torch

from megarc.config import build
from megarc.errors import UserError
from megarc.model import ModelConfig, Transformer, cost_of, initialise, kept_of, narrowed
from megarc.model.feed_forward import NestedSwiGLU
from megarc.parallel import Group, TensorParallel, cut
from megarc.window import Window

KEYS = {
    "layers": 3,
    "hidden": 32,
    "heads": 4,
    "vocabulary": 100,
    "ffn": 48,
    "nested": ["1/8", "1/4", "1/2", 1],
}
CONFIG = build(ModelConfig, KEYS, "here")
TOKENS = torch.arange(2 * 24).view(2, 24) * 7 % 100
WIDTHS = [Fraction(1, 8), Fraction(1, 4), Fraction(1, 2), Fraction(1)]


@pytest.fixture(scope="module")
def model():
    made = Transformer(CONFIG)
    initialise(made, CONFIG.model_copy(update={"initial_std": 0.3}), 1)
    return made.eval()


def dense(model, widths):
    config, cut_out = narrowed(model.config, widths)
    made = Transformer(config).eval()
    values = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.copy_(cut_out(name, values[name].flatten()).view(parameter.shape))
    return made


def logits(model, kept=None):
    with torch.no_grad():
        return model.logits(TOKENS, slice(4, None), 5, kept=kept)


@pytest.mark.parametrize("width", WIDTHS, ids=str)
def test_a_width_cut_out_is_a_dense_model_with_the_same_logits(model, width):
    narrow = dense(model, [width])
    assert narrow.config.nested is None and narrow.config.width_of_ffn == 48 * width
    assert torch.equal(logits(narrow), logits(model, kept_of(CONFIG, width)))


def test_widths_differ(model):
    found = [logits(model, kept_of(CONFIG, width)) for width in WIDTHS]
    assert not any(torch.allclose(one, other, atol=1e-3) for one, other in pairwise(found))
    assert torch.equal(found[-1], logits(model))


def test_mix_and_match_by_layer(model):
    widths = [WIDTHS[1], WIDTHS[3], WIDTHS[0]]
    mixed = dense(model, widths)
    assert mixed.config.ffn == [12, 48, 6]
    with torch.no_grad():
        x = model.embedding(TOKENS)
        for block, width in zip(model.blocks, widths, strict=True):
            x = block(x, 5, kept=kept_of(CONFIG, width))
        expected = model.norm(x)[:, 4:] @ model.embedding.weight[:100].T
    assert torch.allclose(logits(mixed)[..., :100], expected, atol=1e-5)
    parameters = sum(parameter.numel() for parameter in mixed.parameters())
    assert cost_of(mixed.config, Window.plain(8)).parameters == parameters


@pytest.mark.parametrize("ranks", [2, 3, 6])
@pytest.mark.parametrize("width", WIDTHS, ids=str)
def test_tensor_ranks_keep_parts_of_the_same_neurons(model, width, ranks):
    """Their summands, each of a shard, add up to what one rank computes."""
    whole, kept = model.blocks[0].feed_forward, kept_of(CONFIG, width)
    x, total = torch.randn(2, 5, 32), torch.zeros(2, 5, 32)
    assert all(split.fits(ranks) for split in NestedSwiGLU.splits(CONFIG))
    for rank in range(ranks):
        part = NestedSwiGLU(CONFIG, _Summand(Group(rank, ranks)))
        with torch.no_grad():
            for name, parameter in part.named_parameters():
                full = whole.get_parameter(name)
                pieces = [full[box.top : box.bottom, box.left : box.right] for box in parameter.record.boxes]
                parameter.copy_(torch.cat([piece.flatten() for piece in pieces]).view(parameter.shape))
                assert sum(len(piece.flatten()) for piece in pieces) == parameter.numel()
                assert cut(parameter.record.boxes, 0, parameter.numel()) == list(parameter.record.boxes)
            total += part(x, kept)
    assert torch.allclose(total, whole(x, kept), atol=1e-5)


class _Summand(TensorParallel):
    """A tensor rank whose others are asked for nothing."""

    def enter(self, x):
        return x

    def leave(self, x):
        return x


def test_what_a_narrow_width_leaves_out_has_gradients_of_zero(model):
    kept = kept_of(CONFIG, WIDTHS[1])
    loss = model(TOKENS, slice(4, 23), 5, kept=kept)
    loss.objective.backward()
    gradient = model.blocks[1].feed_forward.down.weight.grad.view(32, -1, 8)
    model.zero_grad()
    assert kept == 2 and (gradient[..., :2] != 0).all() and (gradient[..., 2:] == 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ffn": 50}, "the denominator 8, which does not divide ffn 50; use ffn 48 or 56"),
        ({"nested": ["1/2", "1/4", 1]}, "rise and end with 1"),
        ({"nested": ["1/2", "3/4"]}, "rise and end with 1"),
        ({"nested": ["half", 1]}, "'half' is not a share; write 1/4"),
        ({"ffn": [48, 48, 48]}, "nested with a list of ffn"),
        ({"ffn": [48, 48], "nested": None}, "2 widths for 3 layers"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        build(ModelConfig, KEYS | changes, "here")


def test_a_width_that_is_none_is_refused(model):
    with pytest.raises(UserError, match=r"the width 1/3 is none .* it has 1/8, 1/4, 1/2, 1"):
        narrowed(CONFIG, [Fraction(1, 3)])
    with pytest.raises(UserError, match="2 widths are given for 3 layers"):
        narrowed(CONFIG, WIDTHS[:2])
    with pytest.raises(UserError, match=r"no model\.nested"):
        narrowed(CONFIG.model_copy(update={"nested": None}), WIDTHS[:1])
