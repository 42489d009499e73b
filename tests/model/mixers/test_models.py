"""Models of every mixer: who depends on whom, and what must not change a number."""

import pytest
import torch
from support.mixers import intervals_of

from megarc.attention import Branches
from megarc.errors import UserError
from megarc.inference.generate import generate
from megarc.inference.sampling import Sampling
from megarc.model import ExecutionConfig, ModelConfig, Transformer, initialise
from megarc.window import Window

KINDS = ["ssm", "ssm_attention attention", "crf", "ssm crf ssm_attention attention"]
"""In the last layer nothing reads what rows of R read, so a layer that reads it otherwise stands before one."""
MIXED = "crf of 3 transitions"
"""Their mean is the token's own."""
KEYS = {"hidden": 32, "heads": 4, "kv_heads": 2, "vocabulary": 100, "tied": False, "initial_std": 0.2}


def build(mixers, dtype=torch.float64, **execution):
    own = {}
    if mixers == MIXED:
        mixers, own = "crf", {"crf_transitions": 3}
    config = ModelConfig(layers=len(mixers.split()), mixers=mixers, **KEYS, **own)
    model = Transformer(config, ExecutionConfig(**execution)).to(dtype)
    initialise(model, config, 3)
    return model


def tokens_for(rows, batch=2):
    return torch.randint(0, 100, (batch, rows), generator=torch.Generator().manual_seed(rows))


@pytest.mark.parametrize("mixers", [*KINDS, MIXED])
@pytest.mark.parametrize("seen", [0, 1, 4, [(5, 3), (1, 0), (5, 0)]])
def test_changing_a_token_changes_exactly_the_rows_that_see_it(mixers, seen):
    model, rows, tokens = build(mixers), 11, tokens_for(11)
    window = Window(seen, rows - seen, 1) if isinstance(seen, int) else None
    mask = intervals_of([seen, seen]) if window is None else seen
    with torch.no_grad():
        before = model.hidden(tokens, mask)
        for changed in range(rows):
            other = tokens.clone()
            other[:, changed] = (other[:, changed] + 1) % 100
            moved = (model.hidden(other, mask) != before).any(-1)
            key = torch.tensor([changed])
            sees = (
                torch.tensor([window.allow(row, changed) for row in range(rows)])
                if window
                else mask.allow(key)[..., 0]
            )
            assert (moved == sees).all()


@pytest.mark.parametrize("mixers", [*KINDS, MIXED])
@pytest.mark.parametrize("recent", [0, 1, 6])
def test_cached_steps_equal_the_whole(mixers, recent):
    """One row and several at a time, and texts that go on from one beginning."""
    model, tokens, everything = build(mixers), tokens_for(12), slice(None)
    first = recent + 1
    with torch.no_grad():
        whole = model.logits(tokens, everything, recent)
        cache = model.empty_cache(2, 12)
        parts = [model.logits(tokens[:, :first], everything, recent, cache=cache)]
        branches = Branches(cache, 2, 3)
        for row in range(first, first + 3):
            step = model.logits(
                tokens[:, row : row + 1].repeat_interleave(2, 0), everything, 0, cache=branches
            )
            torch.testing.assert_close(step, whole[:, row : row + 1].repeat_interleave(2, 0))
        for part in tokens[:, first:].split(2, 1):
            parts.append(model.logits(part, everything, recent, cache=cache))
    torch.testing.assert_close(torch.cat(parts, 1)[:, recent:], whole[:, recent:])


@pytest.mark.parametrize("mixers", [*KINDS, MIXED])
@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_recomputation_changes_no_number(mixers, recompute):
    tokens = tokens_for(14)

    def gradients(model):
        model(tokens, slice(5, 13), 5).objective.backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    plain, other = gradients(build(mixers)), gradients(build(mixers, recompute=recompute))
    for name, gradient in plain.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradient, other[name])


def test_texts_side_by_side_are_written_as_alone():
    """Windows that begin otherwise, that move, and texts whose slots change."""
    model, window = build(KINDS[-1]), Window(5, 6, 4)
    prompts = tokens_for(9, batch=3)

    def alone(prompt, count):
        ids = prompt.tolist()
        written = []
        while len(written) < count:
            begun, _ = window.opening(len(ids))
            beginning = torch.tensor([ids[-begun:]])
            for _ in range(window.rows - begun + 1):
                recent = min(window.recent, begun - 1)
                logits = model.logits(beginning, slice(-1, None), recent)[0, 0]
                written.append(int(logits.argmax()))
                ids.append(written[-1])
                beginning = torch.tensor([[*beginning[0].tolist(), ids[-1]]])
                if len(written) == count or beginning.shape[1] > window.rows:
                    break
        return ids

    found = generate(model, prompts, window, 7, Sampling(temperature=0.0))
    with torch.no_grad():
        assert found.tolist() == [alone(prompt, 7) for prompt in prompts]


def test_a_pattern_is_a_list_and_wrong_ones_are_refused():
    pattern = ModelConfig(layers=8, mixers="ssm:3 attention", **KEYS)
    assert pattern.mixers == ["ssm", "ssm", "ssm", "attention"]
    assert [pattern.mixer(layer) for layer in (2, 3, 7)] == ["ssm", "attention", "attention"]
    for wrong in ("ssm:3 attention:2", "", "ssm:x", "ssm:0 attention", "mamba", ["ssm"] * 3):
        with pytest.raises(ValueError, match="mixers"):
            ModelConfig(layers=8, mixers=wrong, **KEYS)
    with pytest.raises(ValueError, match="crf_states"):
        ModelConfig(layers=8, mixers="crf", crf_states=65, **KEYS)
    with pytest.raises(ValueError, match="crf_transitions"):
        ModelConfig(layers=8, mixers="crf", crf_transitions=9, **KEYS)


def test_hugging_face_has_no_place_for_it():
    from megarc.inference.huggingface.families import family_of

    with pytest.raises(UserError, match=r"model\.mixers"):
        family_of(ModelConfig(layers=4, mixers="ssm:3 attention", **KEYS))


@pytest.mark.parametrize("mixers", [*KINDS[:3], MIXED])
def test_bf16_over_many_rows_is_finite(mixers):
    model, tokens = build(mixers, dtype=torch.bfloat16), tokens_for(2049, batch=1)
    model(tokens, slice(1948, 2048), 1948).objective.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("mixers", KINDS)
def test_the_same_modules_run_whatever_samples_see(mixers):
    """ZeRO 3 gathers weights as modules are called. Two ranks, of which one had samples without R, waited for ever."""
    model, tokens = build(mixers), tokens_for(12)  # the last one is a target
    orders = []
    for seen in (0, 1, 4, intervals_of([[(5, 3), (6, 0)], [(11, 0)]])):
        called: list[str] = []
        hooks = [
            part.register_forward_pre_hook(lambda *_, name=name, called=called: called.append(name))
            for name, part in model.named_modules()
        ]
        model.zero_grad()
        model(tokens, slice(5, 11), seen).objective.backward()
        assert [name for name, one in model.named_parameters() if one.grad is None] == []
        orders.append(called)
        for hook in hooks:
            hook.remove()
    assert all(order == orders[0] for order in orders)
