"""Models that transformers wrote, read as ours: the same logits; or refused by the name of what we cannot be."""

import json
import sys
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent))
from families import FAMILIES, peer, saved, tokens
from support.runs import full_state

from megarc.config import build
from megarc.errors import UserError
from megarc.inference.huggingface import own_tokenizer, read_config, read_weights
from megarc.model import Transformer, named_values
from megarc.train import RunConfig, load_model, write_imported


def read(folder):
    foreign = read_config(folder)
    model = Transformer(foreign.model).eval()
    own = dict(named_values(model))
    for name, shape, values in read_weights(folder, foreign):
        own[name].data.copy_(values.view(shape))
    return model


def same_logits(theirs, ours, tolerance=1e-5):
    given = tokens(40)
    with torch.no_grad():
        expected, found = theirs(given).logits, ours.logits(given, slice(None), 0)
    assert torch.allclose(found[..., :100].float(), expected.float(), atol=tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_logits_of_every_family_and_switch(tmp_path, family):
    theirs = saved(tmp_path, *FAMILIES[family], max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    same_logits(theirs, read(tmp_path))


def test_a_bias_that_balances_is_state_in_a_run_folder(tmp_path):
    """So training goes on from it; and a model that rotates a part of each head, as it does unless told, is refused."""
    theirs = saved(tmp_path / "hf", *FAMILIES["glm 4, experts"])
    foreign = read_config(tmp_path / "hf")
    config = build(
        RunConfig, {"model": foreign.model.model_dump(), "window": {"causal": 40, "stride": 40}}, "test"
    )
    write_imported(tmp_path / "run", read_weights(tmp_path / "hf", foreign), config)
    same_logits(theirs, load_model(tmp_path / "run").model)
    kept = [name for name in full_state(tmp_path / "run") if name.endswith("/state")]
    assert kept == [f"blocks.{layer}.feed_forward.router.balance/state" for layer in (1, 2, 3)]
    facts = json.loads((tmp_path / "hf" / "config.json").read_text())
    for rope in ({}, {"partial_rotary_factor": 0.5}):
        given = {"rope_type": "default", "rope_theta": 500.0, **rope}
        (tmp_path / "hf" / "config.json").write_text(json.dumps({**facts, "rope_parameters": given}))
        with pytest.raises(UserError, match="partial_rotary_factor must be 1"):
            read_config(tmp_path / "hf")


@pytest.mark.parametrize(
    "old", [{"rope_theta": 500.0}, {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}}]
)
def test_keys_as_transformers_4_wrote_them(tmp_path, old):
    saved(tmp_path, "Llama")
    facts = json.loads((tmp_path / "config.json").read_text())
    del facts["rope_parameters"], facts["head_dim"]
    (tmp_path / "config.json").write_text(json.dumps({**facts, **old, "torch_dtype": "float32"}))
    theirs = peer().AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    same_logits(theirs, read(tmp_path))


def test_bf16_files_and_one_tensor_at_a_time(tmp_path):
    theirs = saved(tmp_path, "Qwen3")
    theirs.to(torch.bfloat16).save_pretrained(tmp_path)
    theirs = peer().AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    same_logits(theirs, read(tmp_path))
    foreign, alive = read_config(tmp_path), []
    for _, _, values in read_weights(tmp_path, foreign):
        alive.append(weakref.ref(values))
        del values
        assert sum(one() is not None for one in alive) <= 1


REFUSED = {
    "model_type": ("gpt2", "model_type"),
    "architectures": (["LlamaForSequenceClassification"], "architectures"),
    "hidden_act": ("gelu", "hidden_act"),
    "mlp_bias": (True, "mlp_bias"),
    "attention_dropout": (0.1, "attention_dropout"),
    "pretraining_tp": (2, "pretraining_tp"),
    "quantization_config": ({"bits": 4}, "quantization_config"),
    "attn_logit_softcapping": (30.0, "attn_logit_softcapping"),
    "hidden_size": ("32", "hidden_size"),
    "rms_norm_eps": (None, "rms_norm_eps"),
    "rope_theta": (3.0, "rope_theta"),
    "rope_parameters": ({"rope_type": "longrope", "rope_theta": 1e4, "factor": 2.0}, "rope_parameters"),
    "rope_scaling": (None, None),
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    saved(folder, "Llama")
    return json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")


def write(folder, facts, tensors):
    (folder / "config.json").write_text(json.dumps(facts))
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("key", [key for key, (_, name) in REFUSED.items() if name])
def test_what_we_cannot_be_is_refused_by_its_key(tmp_path, llama, key):
    facts, tensors = llama
    value, name = REFUSED[key]
    write(tmp_path, {**facts, key: value}, tensors)
    with pytest.raises(UserError, match=name):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4}}, "no factor"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}}, "no original_max_position"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 2.0}}, "no low_freq_factor"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0, "x": 1}}, "not know: x"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 16}, "sliding_window"),
        ({"model_type": "qwen2", "architectures": None, "rope_parameters": None}, "rope_theta"),
        ({"model_type": "smollm3", "architectures": None, "no_rope_layers": [1, 0, 0, 1]}, "no_rope_layers"),
    ],
)  # fmt: skip
def test_what_is_said_of_positions_is_refused_where_it_is_not_ours(tmp_path, llama, changes, words):
    facts, tensors = llama
    write(tmp_path, {**facts, **changes}, tensors)
    with pytest.raises(UserError, match=words):
        read_config(tmp_path)


YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 8}


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": 5},
        {"layer_types": 5},
        {"recent": 16},
        {"layer_types": [1]},
        {"rope_parameters": "yarn"},
        {"rope_parameters": None, "rope_scaling": [1]},
        {"rope_parameters": None, "rope_theta": "10000"},
        {"rope_parameters": {"rope_type": ["default"], "rope_theta": 1e4}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": [1e4]}},
        {"rope_parameters": {**YARN, "attention_factor": "one"}},
        {"rope_parameters": {**YARN, "beta_fast": [32]}},
        {"rope_parameters": {**YARN, "mscale": "one", "mscale_all_dim": 1.0}},
        {"model_type": "smollm3", "architectures": None, "no_rope_layers": 4},
    ],
    ids=str,
)
def test_values_of_another_kind_are_refused_by_their_key(tmp_path, llama, changes):
    facts, tensors = llama
    write(tmp_path, {**facts, **changes}, tensors)
    with pytest.raises(UserError, match=f"{list(changes)[-1]} is .*; (?!megarc does not know)"):
        read_config(tmp_path)


def test_what_a_file_leaves_out_is_what_transformers_takes(tmp_path, llama):
    facts, tensors = llama
    short = {name: value for name, value in facts.items() if name != "num_key_value_heads"}
    for kind, (expected, more) in {"mistral": (8, {"sliding_window": None}), "llama": (32, {})}.items():
        bare = {
            **short,
            "architectures": None,
            "model_type": kind,
            "num_attention_heads": 32,
            "head_dim": 4,
            **more,
        }
        write(tmp_path, bare, tensors)
        assert read_config(tmp_path).model.groups == expected
        assert peer().AutoConfig.from_pretrained(tmp_path).num_key_value_heads == expected
    write(tmp_path, {**facts, "architectures": None, "model_type": "mistral"}, tensors)
    with pytest.raises(UserError, match="sliding_window"):  # 4096 where it is not said
        read_config(tmp_path)


def test_the_first_llamas_files_say_no_base_and_that_is_told(tmp_path, llama):
    facts, tensors = llama
    write(tmp_path, {name: value for name, value in facts.items() if name != "rope_parameters"}, tensors)
    found = read_config(tmp_path)
    assert found.model.rope_base == 10000 and "10000" in found.notes[0]


def test_tensors_that_do_not_fit_are_refused(tmp_path, llama):
    facts, tensors = llama
    weight = "model.layers.1.self_attn.q_proj.weight"

    def refused(words, changed):
        write(tmp_path, facts, changed)
        with pytest.raises(UserError, match=words):
            read_weights(tmp_path, read_config(tmp_path))

    refused(f"no tensor {weight}", {name: value for name, value in tensors.items() if name != weight})
    refused(r"\[8, 32\], and config.json says \[32, 32\]", {**tensors, weight: tensors[weight][:8].clone()})
    refused("of type I64", {**tensors, weight: tensors[weight].long()})
    refused("q_proj.bias has no place", {**tensors, weight.replace("weight", "bias"): torch.ones(32)})
    (tmp_path / "model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="damaged"):
        read_weights(tmp_path, read_config(tmp_path))
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickled"):
        read_weights(tmp_path, read_config(tmp_path))


def test_a_missing_shard_and_a_missing_config(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        read_config(tmp_path)
    saved(tmp_path, "Llama", max_shard_size="20KB")
    gone = sorted(tmp_path.glob("model-*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(UserError, match=f"{gone.name} is missing"):
        read_weights(tmp_path, read_config(tmp_path))


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\x00", '{"a":' * 3000])
def test_a_config_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json"):
        read_config(tmp_path)


def test_an_index_that_names_no_files_is_refused(tmp_path, llama):
    write(tmp_path, *llama)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"model.norm.weight": 3}}')
    with pytest.raises(UserError, match="names the file 3, which is not text"):
        read_weights(tmp_path, read_config(tmp_path))


def test_a_tokenizer_of_another_vocabulary(tmp_path, llama):
    tokenizers = pytest.importorskip("tokenizers")
    write(tmp_path, *llama)
    assert own_tokenizer(tmp_path, read_config(tmp_path)) is None
    for size, fits in ((90, True), (101, False)):
        words = tokenizers.models.WordLevel({f"w{number}": number for number in range(size)}, unk_token="w0")
        tokenizers.Tokenizer(words).save(str(tmp_path / "tokenizer.json"))
        if fits:
            assert own_tokenizer(tmp_path, read_config(tmp_path))[1].vocabulary_size == 90
            continue
        with pytest.raises(UserError, match="101 tokens"):
            own_tokenizer(tmp_path, read_config(tmp_path))
