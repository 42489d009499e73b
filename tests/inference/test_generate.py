"""Cached, window by window, the tokens are those of the plain rule with a whole forward pass for each."""

import pytest
import torch
from support.generating import by_the_rule

from megarc.errors import UserError
from megarc.inference import Sampling, generate
from megarc.model import ModelConfig, Transformer, initialise
from megarc.window import Window

CONFIG = ModelConfig(layers=2, hidden=32, heads=4, kv_heads=2, vocabulary=50, initial_std=0.3)


@pytest.fixture(scope="module")
def model():
    built = Transformer(CONFIG).double()
    initialise(built, CONFIG, 5)
    return built.eval()


def prompts(length, batch=2):
    return torch.randint(0, 50, (batch, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("window", "refresh"),
    [
        (Window.split(6, 5), None),
        (Window.split(6, 5), 2),
        (Window(3, 7, 4), None),
        (Window(3, 7, 4), 3),
        (Window.plain(8), None),
        (Window.plain(8), 1),
        (Window.masked_head(9, 3), None),
    ],
)
@pytest.mark.parametrize("length", [1, 4, 7, 23])
def test_cached_tokens_are_those_of_whole_passes(model, window, refresh, length):
    greedy = Sampling(temperature=0, refresh=refresh)
    moved = refresh or (window.rows // 2 if window.stride == window.rows else window.stride)
    with torch.no_grad():
        expected, places = by_the_rule(model, prompts(length), window, 17, moved)
    assert torch.equal(generate(model, prompts(length), window, 17, greedy), expected)
    # The rule itself: what is drawn once the text is long comes from rows that bore loss, with all of R;
    # before, R is as long as it can be, and C never longer than c.
    for known, (recent, row) in enumerate(places, start=length):
        assert recent <= window.recent and row - recent < window.causal
        if known > window.first_target + window.stride:
            assert recent == window.recent and (row in range(window.rows)[window.loss_rows])
    assert places[0][0] == min(window.recent, length - 1)


def test_the_seed_decides_and_the_batch_does_not_mix(model):
    window = Window.split(4, 4)
    one = generate(model, prompts(5), window, 12, Sampling(seed=3))
    assert torch.equal(one, generate(model, prompts(5), window, 12, Sampling(seed=3)))
    assert not torch.equal(one, generate(model, prompts(5), window, 12, Sampling(seed=4)))
    greedy = Sampling(temperature=0)
    alone = torch.cat([generate(model, row[None], window, 12, greedy) for row in prompts(5)])
    assert torch.equal(alone, generate(model, prompts(5), window, 12, greedy))


@pytest.mark.parametrize("sampling", [Sampling(top_k=3), Sampling(top_p=0.4), Sampling(top_k=9, top_p=0.7)])
def test_only_what_may_be_drawn_is_drawn(model, sampling):
    window, text = Window.split(4, 4), prompts(5, batch=400)
    text = text[:1].expand(400, -1)
    drawn = generate(model, text, window, 1, sampling)[:, -1].unique()
    with torch.no_grad():
        p = model.logits(text[:1], slice(-1, None), 4)[0, 0, :50].softmax(-1)
    if sampling.top_k:
        kept = p.topk(sampling.top_k).values
        allowed = p >= kept[-1]
        p = torch.where(allowed, p, 0) / kept.sum()
    ordered = p.sort(descending=True)
    fewest = int((ordered.values.cumsum(0) < sampling.top_p).sum()) + 1
    assert set(drawn.tolist()) <= set(ordered.indices[:fewest].tolist())
    assert len(drawn) > 1


def test_it_stops_where_the_document_ends(model):
    window, greedy = Window.split(4, 4), Sampling(temperature=0)
    free = generate(model, prompts(5, 1), window, 20, greedy)[0, 5:]
    stop = int(free[3])
    stopped = generate(model, prompts(5, 1), window, 20, Sampling(temperature=0, stop=stop))[0, 5:]
    assert stopped.tolist() == free[: free.tolist().index(stop) + 1].tolist()


@pytest.mark.parametrize(
    ("text", "said"),
    [(torch.zeros(1, 0, dtype=torch.long), "prompt is empty"), (torch.tensor([[50]]), "token 50")],
)
def test_bad_prompts_are_refused(model, text, said):
    with pytest.raises(UserError, match=said):
        generate(model, text, Window.plain(4), 3)


def test_rows_that_never_learned_to_predict_are_refused(model):
    with pytest.raises(UserError, match=r"refresh is 5, .* only 4 rows"):
        generate(model, prompts(3), Window(3, 7, 4), 3, Sampling(refresh=5))


@pytest.mark.parametrize("bad", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}, {"refresh": 0}])
def test_bad_sampling_is_refused(bad):
    with pytest.raises(UserError):
        Sampling(**bad)
