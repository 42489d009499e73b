"""One file, the same model."""

import json
import warnings
import weakref

import pytest
import torch
from safetensors.torch import load_file

from megarc.errors import UserError
from megarc.inference import export, load_exported
from megarc.model import ModelConfig, Transformer, initialise
from megarc.window import Window

CONFIG = ModelConfig(layers=2, hidden=32, heads=4, kv_heads=2, vocabulary=100, tied=False, initial_std=0.2)
WINDOW = Window.split(5, 6)


def built(config=CONFIG):
    model = Transformer(config)
    initialise(model, config, 5)
    return model.eval()


def values(model):
    return ((name, parameter.detach().flatten()) for name, parameter in model.named_parameters())


def same(model, again):
    ours, theirs = dict(model.named_parameters()), dict(again.named_parameters())
    assert ours.keys() == theirs.keys()
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize("changes", [{}, {"tied": True, "qk_norm": True, "learned_positions": 11}])
def test_round_trip(tmp_path, changes):
    model = built(CONFIG.model_copy(update=changes))
    export(values(model), model.config, WINDOW, tmp_path / "out")
    again, window = load_exported(tmp_path / "out")
    assert window == WINDOW and again.config == model.config and not again.training
    assert same(model, again)


@pytest.mark.parametrize("changes", [{}, {"tied": True, "qk_norm": True}])
def test_round_trip_in_hugging_faces_layout_loses_only_the_padding(tmp_path, changes):
    model = built(CONFIG.model_copy(update=changes))
    export(values(model), model.config, WINDOW, tmp_path, layout="huggingface")
    again, window = load_exported(tmp_path)
    assert window == WINDOW and again.config == model.config
    assert not same(model, again)
    for table in (model.embedding, model.head):
        if table is not None:
            table.weight.data[CONFIG.tokens :] = 0
    assert same(model, again)


@pytest.mark.parametrize("layout", ["megarc", "huggingface"])
def test_the_order_in_which_parameters_come_does_not_matter(tmp_path, layout):
    model = built()
    export(values(model), CONFIG, WINDOW, tmp_path / "one", layout=layout)
    export(reversed(list(values(model))), CONFIG, WINDOW, tmp_path / "two", layout=layout)
    one, two = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_bf16(tmp_path):
    model = built()
    export(values(model), CONFIG, WINDOW, tmp_path, dtype=torch.bfloat16)
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors.keys() == dict(model.named_parameters()).keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, model.get_parameter(name).bfloat16())


def peer():
    """transformers, or a warning that pytest's summary shows."""
    try:
        import transformers
    except ImportError:
        warnings.warn("NOT COMPARED with Hugging Face's models: pip install transformers", stacklevel=2)
        pytest.skip("the peer, transformers, is not installed")
    return transformers


PEER = {"rope_base": 500.0, "head_dim": 10, "norm_epsilon": 0.01}  # all unlike Llama's own


COMPLETEP = {
    **PEER, "qk_norm": True, "parametrization": "completep", "base_hidden": 8, "base_layers": 1, "base_head_dim": 2
}  # fmt: skip


@pytest.mark.parametrize("changes", [{"tied": True}, PEER, {**PEER, "qk_norm": True}, COMPLETEP])
def test_hugging_face_reads_the_same_logits(tmp_path, changes):
    transformers = peer()
    config = CONFIG.model_copy(update=changes)
    model = built(config)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data.uniform_(0.5, 1.5)
    export(values(model), config, Window.plain(11), tmp_path, layout="huggingface")
    theirs, seen = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True
    )
    assert not any(seen[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens = torch.randint(0, 100, (2, 11), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = model.logits(tokens, slice(None), 0)[..., :100]
        assert torch.allclose(theirs(tokens).logits, ours, atol=1e-5)


def test_hugging_face_layout_has_llamas_names_and_the_window(tmp_path):
    model = built()
    export(values(model), CONFIG, WINDOW, tmp_path, layout="huggingface")
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors["model.embed_tokens.weight"].shape == (100, 32)
    key_value = model.get_parameter("blocks.1.attention.key_value.weight")
    assert torch.equal(tensors["model.layers.1.self_attn.v_proj.weight"], key_value[16:])
    facts = json.loads((tmp_path / "config.json").read_text())
    assert facts["megarc"]["window"] == {"recent": 5, "causal": 6, "stride": 6}
    assert "another model" in facts["megarc"]["note"]
    export(values(model), CONFIG, Window.plain(11), tmp_path, layout="huggingface")
    assert "note" not in json.loads((tmp_path / "config.json").read_text())["megarc"]


def test_memory_is_for_one_parameter_at_a_time(tmp_path):
    """Those that were written are let go before the next comes."""
    model, alive = built(), []

    def one_by_one():
        for name, parameter in values(model):
            value = parameter.clone()
            alive.append(weakref.ref(value))
            yield name, value
            del value
            # The writer's own names are the only ones left, for the one that it had last.
            assert sum(reference() is not None for reference in alive) <= 1

    export(one_by_one(), CONFIG, WINDOW, tmp_path)
    assert len(alive) == len(dict(model.named_parameters()))


def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path):
    config = CONFIG.model_copy(update={"learned_positions": 11})
    with pytest.raises(UserError, match="learned_positions"):
        export(values(built(config)), config, WINDOW, tmp_path / "a", layout="huggingface")
    half = ((name, value) for name, value in values(built()) if "blocks.1" not in name)
    with pytest.raises(UserError, match=r"has no blocks.1"):
        export(half, CONFIG, WINDOW, tmp_path / "b")
    twice = (pair for pair in values(built()) for _ in range(2))
    with pytest.raises(UserError, match=r"or has twice"):
        export(twice, CONFIG, WINDOW, tmp_path / "c")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="could not write"):
        export(values(built()), CONFIG, WINDOW, tmp_path / "file" / "d")


def test_what_is_no_exported_model_is_refused(tmp_path):
    with pytest.raises(UserError, match="no exported model"):
        load_exported(tmp_path / "nowhere")
    export(values(built()), CONFIG, WINDOW, tmp_path)
    place, facts = tmp_path / "config.json", (tmp_path / "config.json").read_text()
    place.write_text(facts.replace('"recent"', '"recently"'))
    with pytest.raises(UserError, match="no exported model"):
        load_exported(tmp_path)
    place.write_text(facts)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-1])
    with pytest.raises(UserError, match="is damaged"):
        load_exported(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(whole)
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "vocab_size": 100}')
    with pytest.raises(UserError, match="not written by megarc"):
        load_exported(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="not written by megarc"):
        load_exported(tmp_path)
