"""Texts side by side are those that each would be alone, whatever their lengths, slots and the order of leaving."""

import pytest
import torch
from support.generating import by_the_rule

from megarc.errors import UserError
from megarc.inference import Decoder, Sampling, Writing, write
from megarc.inference.decoder import Opening
from megarc.model import ModelConfig, Transformer, initialise
from megarc.window import Window

CONFIG = ModelConfig(layers=2, hidden=32, heads=4, kv_heads=2, vocabulary=50, initial_std=0.3)
WINDOWS = [Window.split(6, 5), Window(3, 7, 4), Window.plain(8), Window.masked_head(9, 3)]


@pytest.fixture(scope="module")
def model():
    built = Transformer(CONFIG).double()
    initialise(built, CONFIG, 5)
    return built.eval()


def prompts(count, longest):
    """As many prompts, of every length up to ``longest`` in turn, in no order."""
    generator = torch.Generator().manual_seed(2)
    lengths = (torch.randperm(count, generator=generator) % longest + 1).tolist()
    return [torch.randint(0, 50, (length,), generator=generator).tolist() for length in lengths]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("slots", [1, 3, 40])
def test_every_length_and_every_refill(model, window, slots):
    """Lengths on both sides of r, of r + c and of where windows begin; each text ends when it likes."""
    given = prompts(2 * window.rows + 3, window.rows + 4)
    texts = [Writing(prompt, 1 + number % 13, number) for number, prompt in enumerate(given)]
    ended = list(write(model, iter(texts), window, Sampling(temperature=0), slots=slots))
    assert sorted(text.number for text in ended) == list(range(len(given)))
    refresh = window.rows // 2 if window.stride == window.rows else window.stride
    for text, prompt in zip(texts, given, strict=True):
        with torch.no_grad():
            expected, _ = by_the_rule(model, torch.tensor([prompt]), window, text.count, refresh)
        assert text.ids == expected[0].tolist()


def test_logits_are_those_of_a_text_alone_in_float32():
    single = Transformer(CONFIG)
    initialise(single, CONFIG, 5)
    decoder = Decoder(single.eval(), 5, 11)
    texts = [[1], [2, 3, 4], list(range(7)), list(range(10, 17)), [9, 8]]
    begun = decoder.begin([Opening(s, ids, min(6, len(ids) - 1)) for s, ids in enumerate(texts)])
    with torch.no_grad():
        for turn in range(4):
            if turn:
                texts = [[*ids, turn] for ids in texts]
                begun = decoder.advance([turn] * 5)
            for ids, logits, first in zip(texts, begun, (1, 3, 7, 7, 2), strict=True):
                alone = single.logits(torch.tensor([ids]), slice(-1, None), min(6, first - 1))[0, 0]
                assert torch.allclose(logits[:50], alone[:50], atol=1e-5)


@pytest.mark.parametrize(
    "rules", [{}, {"repetition": 1.7}, {"temperature": 0, "repetition": 3.0}, {"min_p": 0.2}]
)
def test_draws_do_not_depend_on_the_texts_beside(model, rules):
    window, sampling = Window.split(4, 4), Sampling(**rules)
    given = prompts(12, 9)

    def written(numbers, slots):
        texts = [Writing(given[number], 9, number, seed=4, stop=7) for number in numbers]
        return {text.number: text.ids for text in write(model, texts, window, sampling, slots=slots)}

    together = written(range(12), 5)
    assert written(reversed(range(12)), 3) == together
    assert written([8], 1)[8] == together[8]
    if "repetition" in rules and not sampling.temperature:
        assert all(len(set(ids[len(given[n]) :])) == len(ids) - len(given[n]) for n, ids in together.items())


def test_bad_prompts_and_refresh_are_refused(model):
    for prompt, said in (([], "prompt is empty"), ([50], "token 50"), ([-1], "model knows 50")):
        with pytest.raises(UserError, match=said):
            list(write(model, [Writing(prompt, 3)], Window.plain(4), Sampling()))
    with pytest.raises(UserError, match="refresh is 5"):
        list(write(model, [Writing([1], 3)], Window(3, 7, 4), Sampling(refresh=5)))


def test_bf16_tokens_are_those_of_whole_bf16_passes():
    """Rounding may decide between two tokens that are about as likely; it decides nothing else."""
    half = Transformer(CONFIG)
    initialise(half, CONFIG, 5)
    half, window = half.bfloat16().eval(), Window(3, 7, 4)
    texts, ties = [Writing(prompt, 12) for prompt in prompts(20, 14)], 0
    list(write(half, iter(texts), window, Sampling(temperature=0), slots=6))
    with torch.no_grad():
        for text in texts:
            expected = by_the_rule(half, torch.tensor([text.prompt]), window, 12, 4)[0][0].tolist()
            if text.ids == expected:
                continue
            ties += 1
            place = next(
                n for n, (one, other) in enumerate(zip(text.ids, expected, strict=True)) if one != other
            )
            # The whole pass at that place, as the rule gives it: one token, and the logits of both.
            seen = []
            half.norm.register_forward_hook(lambda part, given, made, seen=seen: seen.append(made[0, -1]))
            by_the_rule(half, torch.tensor([text.prompt]), window, place + 1 - len(text.prompt), 4)
            logits = half.embedding.weight.float() @ seen[-1].float()
            half.norm._forward_hooks.clear()
            assert abs(logits[text.ids[place]] - logits[expected[place]]) < 0.05 * logits.abs().max()
    assert ties <= 5
