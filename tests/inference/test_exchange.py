"""One file, the same model."""

import json

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


@pytest.mark.parametrize("changes", [{}, {"tied": True, "qk_norm": True, "learned_positions": 11}])
def test_round_trip(tmp_path, changes):
    model = built(CONFIG.model_copy(update=changes))
    export(values(model), model.config, WINDOW, tmp_path / "out")
    again, window = load_exported(tmp_path / "out")
    assert window == WINDOW and again.config == model.config
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name))


def test_bf16(tmp_path):
    model = built()
    export(values(model), CONFIG, WINDOW, tmp_path, dtype=torch.bfloat16)
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        assert torch.equal(tensor, model.get_parameter(name).bfloat16())


@pytest.mark.parametrize("tied", [True, False])
def test_hugging_face_reads_the_same_logits(tmp_path, tied):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = CONFIG.model_copy(update={"tied": tied})
    model = built(config)
    export(values(model), config, Window.plain(11), tmp_path, layout="huggingface")
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tokens = torch.randint(0, 100, (2, 11))
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
    assert facts["megarc_window"] == {"recent": 5, "causal": 6, "stride": 6}
    with pytest.raises(UserError, match="another layout"):
        load_exported(tmp_path)


def test_what_does_not_fit_is_refused(tmp_path):
    config = CONFIG.model_copy(update={"qk_norm": True})
    with pytest.raises(UserError, match="qk_norm"):
        export(values(built(config)), config, WINDOW, tmp_path, layout="huggingface")
    with pytest.raises(UserError, match="no exported model"):
        load_exported(tmp_path / "nowhere")
    half = ((name, value) for name, value in values(built()) if "blocks.1" not in name)
    with pytest.raises(UserError, match=r"has no blocks.1"):
        export(half, CONFIG, WINDOW, tmp_path)
