"""Models of ours in Hugging Face's layout, read by transformers: plainly causal, and with the mask."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).parent))
from families import peer, tokens

from megarc.config import build, to_dict
from megarc.errors import UserError
from megarc.inference import Sampling, export, generate, load_exported
from megarc.model import ModelConfig, Transformer, initialise, named_state, named_values
from megarc.window import Window

CONFIG = ModelConfig(
    layers=2, hidden=32, heads=4, kv_heads=2, vocabulary=100, tied=False, initial_std=0.2, rope_base=500.0
)
WINDOW = Window(5, 6, 4)
SCALING = {"kind": "yarn", "factor": 4.0, "original_rows": 16}
FAMILIES = {
    "Llama": {"attention_bias": "all", "rope_scaling": {**SCALING, "kind": "llama3", "high_turns": 4.0}},
    "Qwen2": {"attention_bias": "qkv", "rope_scaling": {"kind": "linear", "factor": 2.0}},
    "Qwen3": {"qk_norm": True, "tied": True, "attention_bias": "qkv", "rope_scaling": SCALING},
    "Mistral": {"hidden": 30, "head_dim": 8},
    "Qwen3Moe": {
        "qk_norm": True,
        "layers": 4,
        "experts": {"count": 6, "active": 2, "width": 12, "every": 2, "dense_first": 1, "balance": "loss"},
    },
    "Mixtral": {"experts": {"count": 5, "active": 3, "width": 12, "balance": "none"}},
    "Glm4Moe": {
        "qk_norm": True,
        "attention_bias": "qkv",
        "layers": 3,
        "experts": {
            "count": 6,
            "active": 2,
            "width": 12,
            "shared": 2,
            "scale": 1.5,
            "dense_first": 1,
            "scores": "sigmoid",
        },
    },
    "Glm4Moe, plain": {
        "rope_scaling": SCALING,
        "experts": {
            "count": 5,
            "active": 3,
            "width": 12,
            "scores": "sigmoid",
            "normalised": False,
            "balance": "loss",
        },
    },
    "Olmo2": {"qk_norm": True, "qk_norm_over": "all", "norm_place": "after"},
    "SmolLM3": {"rope_skip_every": 2, "attention_bias": "qkv"},
    "Llama, nested and scaled": {
        "nested": ["1/2", "1"],
        "ffn": 64,
        "tied": True,
        "parametrization": "completep",
        "base_hidden": 16,
        "base_layers": 1,
        "attention_bias": "all",
    },
    "Olmo2, scaled": {
        "qk_norm": True,
        "qk_norm_over": "all",
        "norm_place": "after",
        "parametrization": "completep",
        "base_hidden": 16,
        "base_layers": 1,
    },
}


def built(changes=None, window=WINDOW, folder=None, **how):
    """A model of ours; also exported to ``folder``."""
    config = build(ModelConfig, {**to_dict(CONFIG), **(changes or {})}, "the test")
    model = Transformer(config).eval()
    initialise(model, config, 5)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.data.uniform_(0.5, 1.5) if "norm" in name else parameter.data.normal_(0, 0.3)
    for _, balance in named_state(model):
        balance.normal_(0, 0.3)
    if folder is not None:
        values = ((name, value.detach().flatten()) for name, value in named_values(model))
        export(values, config, window, folder, layout="huggingface", end=99, **how)
    return model


def theirs(folder, **how):
    model, seen = peer().AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, local_files_only=True, **how
    )
    assert not any(seen[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model


def equal(found, expected):
    return torch.allclose(found, expected[..., :100], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_class_of_transformers_gives_our_logits_with_the_mask_and_without(tmp_path, family):
    model = built(FAMILIES[family], folder=tmp_path, largest=20_000)
    plain, masked = theirs(tmp_path), theirs(tmp_path, trust_remote_code=True)
    assert type(plain).__name__ == f"{family.split(',')[0]}ForCausalLM" and isinstance(masked, type(plain))
    assert type(theirs(tmp_path)) is type(plain)  # code that was trusted once does not stay
    text = tokens(17)
    with torch.no_grad():
        assert equal(plain(text).logits, model.logits(text, slice(None), 0))
        assert equal(masked(text).logits, model.logits(text, slice(None), 0))
        for length in (4, 9, 11, 17):  # shorter than R, within C, all of R + C, longer
            kinds = torch.zeros(2, length, dtype=torch.long)
            kinds[:, : min(5, length - 1)] = 1
            expected = model.logits(text[:, :length], slice(None), min(5, length - 1))
            assert equal(masked(text[:, :length], token_type_ids=kinds).logits, expected)
    found = masked.generate(text[:, :8], max_new_tokens=6, do_sample=False, eos_token_id=None)
    assert torch.equal(found, generate(model, text[:, :8], WINDOW, 6, Sampling(temperature=0)))


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Our model, and the same with its mask in transformers."""
    folder = tmp_path_factory.mktemp("both")
    model = built({"qk_norm": True}, folder=folder)
    return model, theirs(folder, trust_remote_code=True), folder


@pytest.fixture
def flex_as_it_is(monkeypatch):
    """torch's flex attention without its compiler, which takes minutes on a CPU."""
    import torch.nn.attention.flex_attention as flex
    import transformers.integrations.flex_attention as wrapped

    monkeypatch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(wrapped.WrappedFlexAttention, "__call__", lambda self: flex.flex_attention)


@pytest.mark.parametrize("attention", ["eager", "sdpa", "flex_attention"])
def test_a_batch_of_unequal_prompts_padded_on_the_left(both, attention, flex_as_it_is):
    model, masked, _ = both
    masked.set_attn_implementation(attention)
    text, lengths = tokens(12, batch=3), (12, 7, 3)
    mask, kinds = torch.zeros(3, 12, dtype=torch.long), torch.zeros(3, 12, dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, 12 - length :] = 1
        kinds[row, 12 - length : 12 - length + min(5, length - 1)] = 1
    with torch.no_grad():
        found = masked(text, attention_mask=mask, token_type_ids=kinds).logits
        for row, length in enumerate(lengths):
            expected = model.logits(text[row : row + 1, 12 - length :], slice(None), min(5, length - 1))
            assert equal(found[row : row + 1, 12 - length :], expected)
    masked.set_attn_implementation("sdpa")


def test_generate_is_ours_token_by_token(both):
    """Prompts of every length, alone and in a batch, with a cache or without, over several windows."""
    model, masked, _ = both
    for length in (1, 3, 6, 8, 12, 17):
        text = tokens(length)
        expected = generate(model, text, WINDOW, 18, Sampling(temperature=0))
        for more in ({}, {"use_cache": False}, {"cache_implementation": "static"}):
            if more and length != 8:
                continue
            found = masked.generate(text, max_new_tokens=18, do_sample=False, eos_token_id=None, **more)
            assert torch.equal(found, expected), (length, more)
    refreshed = generate(model, text, WINDOW, 9, Sampling(temperature=0, refresh=2))
    assert torch.equal(
        masked.generate(text, max_new_tokens=9, do_sample=False, eos_token_id=None, refresh=2), refreshed
    )
    one, other = tokens(9, batch=1), tokens(4, batch=1)
    padded = torch.cat((one, torch.cat((torch.zeros(1, 5, dtype=torch.long), other), 1)))
    mask = torch.tensor([[1] * 9, [0] * 5 + [1] * 4])
    found = masked.generate(
        padded, attention_mask=mask, max_new_tokens=18, do_sample=False, eos_token_id=None
    )
    for row, text in enumerate((one, other)):
        assert torch.equal(
            found[row, 9:], generate(model, text, WINDOW, 18, Sampling(temperature=0))[0, text.shape[1] :]
        )


def test_a_text_that_has_ended_is_filled_up(both):
    model, masked, _ = both
    text = tokens(8, batch=4)
    free = generate(model, text, WINDOW, 18, Sampling(temperature=0))
    stop = int(free[1, 8 + 6])
    expected = generate(model, text, WINDOW, 18, Sampling(temperature=0, stop=stop))
    found = masked.generate(text, max_new_tokens=18, do_sample=False, eos_token_id=stop, pad_token_id=stop)
    assert torch.equal(found, expected)


def test_without_refresh_the_prompt_is_r_in_one_window(both):
    model, masked, _ = both
    text = tokens(8)
    found = masked.generate(text, max_new_tokens=12, do_sample=False, eos_token_id=None, refresh=0)
    step = text
    with torch.no_grad():
        for _ in range(12):
            step = torch.cat((step, model.logits(step, slice(-1, None), 5)[..., :100].argmax(-1)), 1)
    assert torch.equal(found, step)
    beams = masked.generate(text, max_new_tokens=4, num_beams=2, num_return_sequences=2, do_sample=False)
    assert beams.shape == (4, 12) and torch.equal(beams[::2, :8], text)


def test_what_would_be_wrong_in_silence_is_refused(both):
    _, masked, _ = both
    masked.set_attn_implementation("sdpa")
    text, kinds = tokens(8), torch.tensor([[1, 1, 0, 1, 0, 0, 0, 0]] * 2)
    with pytest.raises(ValueError, match="one run"):
        masked(text, token_type_ids=kinds)
    kinds[:, 3] = 0
    with pytest.raises(ValueError, match="ready mask"):
        masked(text, token_type_ids=kinds, attention_mask=torch.ones(2, 1, 8, 8))
    with pytest.raises(ValueError, match="several documents"):
        masked(text, token_type_ids=kinds, position_ids=torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]] * 2))
    cache = masked(text[:, :4]).cache
    with pytest.raises(ValueError, match="filled cache"):
        masked(text[:, 4:], token_type_ids=kinds[:, :4], cache=cache)
    with pytest.raises(ValueError, match="prefill_chunk_size"):
        masked.generate(text, prefill_chunk_size=2)
    with pytest.raises(ValueError, match="padded on the left"):
        masked.generate(text, attention_mask=torch.tensor([[1] * 7 + [0]] * 2))
    with pytest.raises(ValueError, match="num_beams needs one window"):
        masked.generate(text, max_new_tokens=18, num_beams=2)
    with pytest.raises(ValueError, match="refresh is 7"):
        masked.generate(text, refresh=7)
    with pytest.raises(ValueError, match="at least one token"):
        masked.generate(text[:, :0])
    masked.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="flash attention"):
        masked(text, token_type_ids=kinds)
    masked.config._attn_implementation = "sdpa"


def test_transformers_saves_it_again_whole(both, tmp_path):
    model, masked, _ = both
    masked.save_pretrained(tmp_path)
    assert (tmp_path / "modeling_megarc.py").exists()
    again = theirs(tmp_path, trust_remote_code=True)
    text, kinds = tokens(9), torch.tensor([[1] * 5 + [0] * 4] * 2)
    with torch.no_grad():
        assert equal(again(text, token_type_ids=kinds).logits, model.logits(text, slice(None), 5))


def test_the_pipeline_of_transformers_writes_with_the_mask(both):
    tokenizers = pytest.importorskip("tokenizers")
    model, masked, _ = both
    names = {f"w{number}": number for number in range(100)}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(names, unk_token="w0"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = peer().PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="w99", pad_token="w99")
    write = peer().pipeline("text-generation", model=masked, tokenizer=fast)
    text = tokens(7, batch=1)
    prompt = " ".join(f"w{number}" for number in text[0])
    found = write(prompt, max_new_tokens=9, do_sample=False, eos_token_id=None, return_tensors=True)
    expected = generate(model, text, WINDOW, 9, Sampling(temperature=0))
    assert found[0]["generated_token_ids"] == expected[0].tolist()


def test_shards_an_index_and_what_they_say(tmp_path):
    model = built(folder=tmp_path, largest=20_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(files) == len(set(index["weight_map"].values())) > 3
    total = 0
    for file in files:
        with safe_open(file, framework="pt") as opened:
            assert opened.metadata() == {"format": "pt"}
            total += sum(opened.get_tensor(name).nbytes for name in opened.keys())  # noqa: SIM118
    assert total == index["metadata"]["total_size"]
    again, window = load_exported(tmp_path)
    assert window == WINDOW and again.config == model.config
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == 99
    built(folder=tmp_path)  # over it, in one file: the shards and their index are gone
    assert [path.name for path in sorted(tmp_path.glob("model*safetensors*"))] == ["model.safetensors"]


def test_a_missing_shard_is_named(tmp_path):
    built(folder=tmp_path, largest=20_000)
    gone = sorted(tmp_path.glob("model-*.safetensors"))[2]
    gone.unlink()
    with pytest.raises(UserError, match=f"{gone.name} is missing"):
        load_exported(tmp_path)


def test_a_causal_model_takes_no_code_along(tmp_path):
    built(window=Window.plain(11), folder=tmp_path)
    assert not (tmp_path / "modeling_megarc.py").exists()
    assert not {"auto_map", "prefix_lm"} & json.loads((tmp_path / "config.json").read_text()).keys()


def test_layers_of_several_widths_are_refused(tmp_path):
    with pytest.raises(UserError, match="different widths"):
        built({"ffn": [64, 32]}, folder=tmp_path)


@pytest.mark.parametrize("changes", [{"causal_heads": 2}, {"sliding_window": 5}])
def test_masks_that_no_class_has_are_refused(tmp_path, changes):
    (key,) = changes
    with pytest.raises(UserError, match=rf"model\.{key} is .*--layout megarc"):
        built(changes, folder=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("changes", [{"norm_place": "after"}, {"qk_norm": True, "qk_norm_over": "all"},
                                     {"qk_norm": True, "rope_skip_every": 2}])  # fmt: skip
def test_what_no_class_is_is_refused(tmp_path, changes):
    with pytest.raises(UserError, match="no class of transformers"):
        built(changes, folder=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("experts", "words"),
    [
        ({"balance": "bias"}, "balance bias with softmax scores cannot be stored"),
        ({"balance": "none", "shared": 1}, "shared 1"),
        ({"scores": "sigmoid", "every": 2}, "scores sigmoid.*every 2"),
        ({"balance": "none", "every": 2}, "nor dense layers"),
    ],
)
def test_experts_that_no_class_has_are_refused(tmp_path, experts, words):
    with pytest.raises(UserError, match=words):
        built({"experts": experts}, folder=tmp_path / "no")
