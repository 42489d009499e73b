"""Several continuations of each beginning are those that whole forward passes draw, however a batch is cut."""

import sys

import pytest
import torch

from megarc.inference import Decoder, Sampling, continuations, look_up
from megarc.inference.decoder import Opening
from megarc.model import ModelConfig, Transformer, initialise

SHAPE = {"layers": 2, "hidden": 32, "heads": 4, "vocabulary": 50, "initial_std": 0.3}
MODELS = {
    "grouped": {"kv_heads": 2, "attention_bias": "all"},
    "norms after": {"norm_place": "after", "qk_norm": True, "qk_norm_over": "all"},
    "learned": {"learned_positions": 40, "layers": 1},
    "scaled": {
        "kv_heads": 1,
        "logit_cap": 3.0,
        "rope_skip_every": 2,
        "rope_scaling": {"kind": "yarn", "factor": 4.0, "original_rows": 8},
        "parametrization": "completep",
        "base_hidden": 16,
        "base_layers": 1,
    },
}


def built(changes):
    config = ModelConfig(**{**SHAPE, **changes})
    model = Transformer(config).double()
    initialise(model, config, 5)
    return model.eval()


def slowly(model, text, recent, uniforms, sampling, positions):
    """Each continuation by itself, a whole forward pass for each token."""
    found = torch.empty(uniforms.shape, dtype=torch.long)
    for sample, count in torch.cartesian_prod(*map(torch.arange, uniforms.shape[:2])).tolist():
        ids, at = text[sample][None], None if positions is None else positions[sample][None]
        for place in range(uniforms.shape[2]):
            logits = model.logits(ids, slice(None), recent, positions=at)[:, -1]
            drawn = look_up(logits, sampling, uniforms[sample, count, place][None])
            found[sample, count, place] = drawn[0]
            ids = torch.cat((ids, drawn[None]), 1)
            at = None if at is None else torch.cat((at, at[:, -1:] + 1), 1)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_they_are_those_of_whole_passes(name, monkeypatch):
    model, generator = built(MODELS[name]), torch.Generator().manual_seed(0)
    text = torch.randint(0, 50, (3, 7), generator=generator)
    # more than are written together
    uniforms = torch.rand(3, 10, 4, dtype=torch.float64, generator=generator)
    sampling = Sampling(temperature=0.8, never=(3,))
    monkeypatch.setattr(sys.modules["megarc.inference.generate"], "ROWS", 15)  # two beginnings in a pass
    for recent, positions in ((0, None), (6, None), (4, torch.tensor([0, 1, 2, 2, 3, 3, 4]).expand(3, -1))):
        with torch.no_grad():
            expected = slowly(model, text, recent, uniforms, sampling, positions)
        tokens, likely = continuations(model, text, recent, uniforms, sampling, positions)
        assert torch.equal(tokens, expected) and likely.shape == tokens.shape
    alone, _ = continuations(model, text[1:2], recent, uniforms[1:2, :3], sampling, positions[1:2])
    assert torch.equal(alone, expected[1:2, :3])


@pytest.mark.parametrize("name", MODELS)
def test_the_last_block_reads_the_last_rows_alone(name):
    """Windows that begin together, alike and packed: the last block computes one row of each."""
    model, lengths = built(MODELS[name]), (1, 9, 4, 9)
    rows = []
    model.blocks[-1].feed_forward.register_forward_hook(lambda part, given, made: rows.append(made.shape[:2]))
    texts = [list(range(length)) for length in lengths]
    decoder = Decoder(model, 4, 12)
    begun = decoder.begin([Opening(s, ids, min(5, len(ids) - 1)) for s, ids in enumerate(texts)])
    alike = Decoder(model, 2, 12).begin([Opening(s, texts[1], 5) for s in range(2)])
    assert [batch * count for batch, count in rows] == [4, 2]
    more = decoder.advance([7] * 4)
    with torch.no_grad():
        for ids, first, second in zip(texts, begun, more, strict=True):
            recent = min(5, len(ids) - 1)
            assert torch.allclose(first, model.logits(torch.tensor([ids]), slice(None), recent)[0, -1])
            whole = model.logits(torch.tensor([[*ids, 7]]), slice(None), recent)[0, -1]
            assert torch.allclose(second, whole)
    assert torch.allclose(alike[0], begun[1]) and torch.allclose(alike[1], begun[1])
