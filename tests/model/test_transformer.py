"""The whole model: who depends on whom, and switches that must not change a number."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from megarc.attention import Branches, Cache
from megarc.interval import Intervals
from megarc.model import ExecutionConfig, ModelConfig, Transformer, initialise
from megarc.model.compiling import Compiled
from megarc.window import Window

CONFIG = ModelConfig(
    layers=2, hidden=48, heads=4, kv_heads=2, vocabulary=100, qk_norm=True, tied=False, initial_std=0.2
)


def build(config=CONFIG, dtype=torch.float64, **execution):
    model = Transformer(config, ExecutionConfig(**execution)).to(dtype)
    initialise(model, config, 3)
    return model


def tokens_for(window, batch=2, seed=0):
    return torch.randint(0, 100, (batch, window.tokens), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("window", [Window(0, 9, 9), Window(4, 5, 5), Window(7, 3, 2), Window(1, 8, 3)])
def test_changing_a_token_changes_exactly_the_rows_that_see_it(window):
    model, tokens = build(), tokens_for(window)[:, :-1]
    with torch.no_grad():
        before = model.hidden(tokens, window.recent)
        for changed in range(window.rows):
            other = tokens.clone()
            other[:, changed] = (other[:, changed] + 1) % 100
            moved = (model.hidden(other, window.recent) != before).any(-1)
            sees = torch.tensor([window.allow(row, changed) for row in range(window.rows)])
            assert (moved == sees).all()


def test_losses_are_on_loss_rows_and_the_boundary_is_given():
    window = Window(5, 6, 4)
    model, tokens = build(), tokens_for(window)
    loss = model(tokens, window.loss_rows, window.recent)
    every = model(tokens, slice(0, window.rows), window.recent)
    assert loss.nll.shape == (2, 4)
    assert torch.allclose(loss.nll, every.nll[:, -4:])
    # The last token is only a target: row n-1's loss depends on it, its logits do not.
    logits = model.logits(tokens[:, :-1], window.loss_rows, window.recent)
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), tokens[:, 1:][:, window.loss_rows].flatten(), reduction="none"
    )
    assert torch.allclose(loss.nll.flatten(), expected)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"tied": True, "norm_place": "after", "qk_norm": False},
        {"sliding_window": 5},
        {"causal_heads": 2, "learned_positions": 40},
        {"nested": [Fraction(1, 2), Fraction(1)], "kept": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("seen", ["plain", "documents"])
def test_scoring_leaves_rows_out_of_the_last_block_and_changes_nothing(keys, seen):
    window = Window(9, 8, 6)
    keys = dict(keys)
    kept = 1 if keys.pop("kept", False) else None
    model, tokens = build(CONFIG.model_copy(update=keys)), tokens_for(window)
    positions = None
    what = window.recent
    if seen == "documents":
        documents = np.repeat([[0, 1], [0, 2]], [5, window.rows - 5], axis=1).astype(np.int32)
        what = Intervals.of(window.rows, np.array([9, 3], dtype=np.int32), documents).map(torch.as_tensor)
        positions = torch.arange(window.rows).expand(2, -1).clone()
        positions[:, 5:] -= 5
    trained = model(tokens, window.loss_rows, what, positions, kept=kept)
    rows = []
    last = model.blocks[-1].feed_forward
    last.register_forward_hook(lambda module, given, made: rows.append(made.shape[1]))
    with torch.no_grad():
        scored = model(tokens, window.loss_rows, what, positions, kept=kept)
        every = model(tokens, slice(0, window.rows), what, positions, kept=kept)
    assert rows == [window.loss_rows.stop - window.loss_rows.start, window.rows]
    assert (scored.nll - trained.nll).abs().max() < 1e-12
    assert (scored.nll - every.nll[:, window.loss_rows]).abs().max() < 1e-12


def test_the_head_runs_on_rows_with_weight_only():
    """Rows by number give the losses and gradients that weights of 0 give on all rows; none at all is no error."""
    window = Window(3, 8, 8)
    model, tokens = build(), tokens_for(window)
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(2, window.rows, generator=generator, dtype=torch.float64)
    weights *= torch.rand(2, window.rows, generator=generator) < 0.4
    chosen = weights.flatten().nonzero()[:, 0]

    def run(rows, weights):
        model.zero_grad()
        loss = model(tokens, rows, 3, weights=weights)
        loss.objective.backward()
        return loss, [parameter.grad.clone() for parameter in model.parameters()]

    every, expected = run(slice(0, window.rows), weights)
    some, found = run(chosen, weights.flatten()[chosen])
    assert some.nll.shape == (len(chosen),)
    assert torch.allclose(some.nll, every.nll.flatten()[chosen])
    assert torch.allclose(some.objective, every.objective)
    assert all(torch.allclose(one, other, atol=1e-12) for one, other in zip(found, expected, strict=True))
    nothing, none = run(chosen[:0], weights.flatten()[:0])
    assert nothing.objective == 0 and all((gradient == 0).all() for gradient in none)


def gradients(model, window, tokens):
    model.zero_grad()
    model(tokens, window.loss_rows, window.recent).objective.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("engine", ["auto", "split_cpu"])
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_engines_and_recomputation_change_no_number(engine, recompute):
    window = Window(5, 8, 8)
    tokens = tokens_for(window)
    plain = gradients(build(attention="reference"), window, tokens)
    other = gradients(build(attention=engine, recompute=recompute), window, tokens)
    for name, gradient in plain.items():
        assert torch.allclose(gradient, other[name], rtol=1e-9, atol=1e-12), name


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_compile_changes_no_number_and_breaks_no_graph(recompute, caplog):
    """Blocks are compiled whole: a graph break would be an error, told in the log."""
    window = Window(16, 16, 16)
    tokens = tokens_for(window)
    plain = gradients(build(dtype=torch.float32), window, tokens)
    compiled = build(dtype=torch.float32, compile=True, recompute=recompute)
    for name, gradient in gradients(compiled, window, tokens).items():
        assert torch.allclose(gradient, plain[name], rtol=1e-3, atol=1e-4), name
    assert "runs eagerly" not in caplog.text


def test_what_cannot_be_compiled_says_so_once_and_runs(caplog):
    def breaks(x):
        print(end="")
        return x + 1

    function = Compiled(breaks, "the function")
    assert [function(torch.zeros(1)).item() for _ in range(3)] == [1.0, 1.0, 1.0]
    assert caplog.text.count("the function is not compiled and runs eagerly") == 1


@pytest.mark.parametrize("recent", [0, 1, 6])
def test_cached_steps_equal_the_whole(recent):
    window = Window(recent, 12 - recent, 12 - recent)
    model, tokens = build(), tokens_for(window)[:, :-1]
    everything = slice(None)
    with torch.no_grad():
        whole = model.logits(tokens, everything, recent)
        first = recent + 1
        cache = Cache(2, 2, 2, 12, 12, torch.float64, torch.device("cpu"))
        parts = [model.logits(tokens[:, :first], everything, recent, cache=cache)]
        for row in range(first, 12):
            parts.append(model.logits(tokens[:, row : row + 1], everything, recent, cache=cache))
    assert torch.allclose(torch.cat(parts, 1)[:, recent:], whole[:, recent:], atol=1e-10)


def test_padding_of_the_vocabulary_is_never_predicted():
    logits = build().logits(tokens_for(Window.plain(6))[:, :-1], slice(None), 0)
    assert logits.shape[-1] == 128
    assert (logits[..., 100:] == float("-inf")).all() and logits[..., :100].isfinite().all()


@pytest.mark.parametrize("learned", [None, 64])
@pytest.mark.parametrize("recompute", ["none", "full"])
def test_given_positions_take_the_place_of_row_numbers(learned, recompute):
    config = CONFIG.model_copy(update={"learned_positions": learned})
    window = Window(5, 6, 4)
    model, tokens = build(config, recompute=recompute), tokens_for(window)[:, :-1]
    numbers = torch.arange(window.rows).expand(2, -1)

    def logits(tokens, positions):
        return model.logits(tokens, slice(None), window.recent, positions=positions)

    plain = model.logits(tokens, slice(None), window.recent)
    assert torch.allclose(logits(tokens, numbers), plain)
    # R is a set: in another order, each row with its own position, it says the same.
    order = torch.tensor([3, 0, 4, 1, 2, *range(5, 11)])
    assert torch.allclose(logits(tokens[:, order], numbers[:, order]), plain[:, order])
    # Rotary positions know differences only, learned ones each row.
    assert torch.allclose(logits(tokens, numbers + 20), plain, atol=1e-6) == (learned is None)


def test_branches_of_a_cache_take_positions_and_read_one_beginning():
    window = Window(5, 6, 4)
    model, tokens = build(), tokens_for(window)[:, :-1]
    places = torch.tensor([0, 1, 5, 6, 5, 5, 6, 7, 8, 9, 10]).expand(2, -1)
    with torch.no_grad():
        whole = model.logits(tokens, slice(None), window.recent, positions=places)
        cache = Cache(2, 2, 2, window.rows, 12, torch.float64, "cpu")
        model.logits(tokens[:, :6], slice(None), window.recent, cache=cache, positions=places[:, :6])
        branches = Branches(cache, 3, 5)
        for row in range(6, 11):
            new = slice(row, row + 1)
            given, at = (part[:, new].repeat_interleave(3, 0) for part in (tokens, places))
            step = model.logits(given, slice(None), 0, cache=branches, positions=at)
            assert torch.allclose(step, whole[:, new].repeat_interleave(3, 0))
