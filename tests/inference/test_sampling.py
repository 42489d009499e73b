"""The rules of drawing, against the same rules written out for one row in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megarc.errors import UserError
from megarc.inference.sampling import Sampling, draw


def by_the_rules(logits, sampling, seen):
    """Probabilities [ids] of one row, a rule after the other."""
    scores = logits.double().clone()
    for token in seen:
        scores[token] = (
            scores[token] / sampling.repetition if scores[token] > 0 else scores[token] * sampling.repetition
        )
    scores /= sampling.temperature
    scores[list(sampling.never)] = float("-inf")
    if sampling.top_k:
        scores[scores < scores.sort(descending=True).values[min(sampling.top_k, len(scores)) - 1]] = float(
            "-inf"
        )
    if sampling.top_p < 1:
        total = 0.0
        p = scores.softmax(0)
        for token in scores.argsort(descending=True).tolist():
            if total >= sampling.top_p:
                scores[token] = float("-inf")
            total += float(p[token])
    p = scores.softmax(0)
    p[p < sampling.min_p * p.max()] = 0
    return p / p.sum()


@settings(max_examples=15)
@given(
    st.sampled_from([3, 64, 65, 300]),
    st.floats(0.1, 3),
    st.sampled_from([0, 1, 5]),
    st.sampled_from([0.3, 0.9, 1.0]),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.sampled_from([1.0, 1.5]),
    st.integers(0, 1000),
)
def test_each_token_has_its_share_of_the_numbers(ids, temperature, top_k, top_p, min_p, repetition, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, ids, generator=generator) * 3
    sampling = Sampling(temperature, top_k, top_p, never=(1,), min_p=min_p, repetition=repetition)
    seen = torch.zeros(1, ids, dtype=torch.bool)
    seen[0, [0, 2]] = True
    uniform = (torch.arange(5000, dtype=torch.float64) + 0.5) / 5000
    tokens, likely = draw(logits.expand(5000, -1), sampling, uniform, seen.expand(5000, -1))
    expected = by_the_rules(logits[0], sampling, (0, 2))
    assert (torch.bincount(tokens, minlength=ids) / 5000 - expected).abs().max() < 1e-3
    assert (tokens.diff() >= 0).all(), "a distribution function rises"
    assert torch.allclose(likely, logits[0].log_softmax(0)[tokens], atol=1e-5)


def test_the_ends_of_the_interval_and_far_logits():
    logits = torch.full((4, 130), -80.0)
    logits[:, 5], logits[:, 77], logits[:, 1] = 60.0, 61.0, 500.0  # the likeliest may not be drawn
    uniform = torch.tensor([0.0, 0.2, 0.9, 1 - 2**-53], dtype=torch.float64)
    tokens, likely = draw(logits, Sampling(never=(1,)), uniform)
    assert tokens.tolist() == [5, 5, 77, 77]
    assert torch.allclose(likely, torch.tensor([-440.0, -440.0, -439.0, -439.0]))
    assert draw(logits, Sampling(temperature=0, never=(1,)), uniform)[0].tolist() == [77] * 4


@pytest.mark.parametrize(
    "bad",
    [
        {"min_p": 1.5},
        {"min_p": -0.1},
        {"repetition": 0.0},
        {"repetition": 1e-320},
        {"repetition": float("inf")},
        {"temperature": float("nan")},
        {"temperature": 1e-40},
    ],
)
def test_bad_rules_are_refused(bad):
    with pytest.raises(UserError):
        Sampling(**bad)
