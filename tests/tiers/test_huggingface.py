"""A Hugging Face model at the bottom: ours, exported, writes the same roll-outs through that library."""

import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from megarc.errors import UserError
from megarc.inference import continuations, export
from megarc.model import ModelConfig, Transformer, initialise
from megarc.science import MAKERS
from megarc.tiers import make_rollouts
from megarc.tiers.config import WritesConfig
from megarc.tiers.rollout_layout import Tags
from megarc.tiers.sampling import draws, sampling_of
from megarc.window import Window

CONFIG = ModelConfig(layers=2, hidden=32, heads=4, kv_heads=2, vocabulary=171, initial_std=0.3)
TAGS = Tags(tuple(range(159, 169)), 169, 170)
WRITES = WritesConfig(samples=3, tokens=6, temperature=0.9, top_k=20)


def needed():
    """transformers, or a warning that pytest's summary shows."""
    try:
        import transformers
    except ImportError:
        warnings.warn("NOT TRIED with a Hugging Face model: pip install transformers", stacklevel=2)
        pytest.skip("transformers is not installed")
    return transformers


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    model = Transformer(CONFIG)
    initialise(model, CONFIG, 5)
    values = ((name, parameter.detach()) for name, parameter in model.named_parameters())
    export(values, CONFIG, Window.plain(64), folder, layout="huggingface")
    return model.eval(), folder


def test_it_writes_what_ours_writes(exported):
    needed()
    from megarc.tiers.huggingface import HuggingFaceWriter

    model, folder = exported
    (folder / "tokenizer.json").write_bytes(b"{}")
    digest = hashlib.sha256(b"{}").hexdigest()
    writer = HuggingFaceWriter(folder, WRITES, TAGS, torch.device("cpu"), digest)
    text, uniforms = np.random.default_rng(0).integers(0, 150, (5, 30)), draws(0, 0, np.arange(5), WRITES)
    tokens, likely = writer.write(text, [], uniforms)
    sampling = sampling_of(WRITES, TAGS, None, 171)
    expected, ours = continuations(model, torch.as_tensor(text), 0, torch.as_tensor(uniforms), sampling)
    assert (tokens == expected.numpy()).all()
    assert np.allclose(likely, ours, atol=1e-4)
    fewer = HuggingFaceWriter(folder, WRITES, TAGS, torch.device("cpu"), digest, known=60)
    assert tokens.max() >= 60 > fewer.write(text, [], uniforms)[0].max()
    with pytest.raises(UserError, match="no tokenizer file that is the one"):
        HuggingFaceWriter(folder, WRITES, TAGS, torch.device("cpu"), "0" * 64)


def test_a_job_with_it_and_without_a_folder(exported, built, groups, tmp_path):
    needed()
    job = built.job("bottom", "middle").model_copy(
        update={"huggingface": True, "writer": exported[1], "to": tmp_path / "x"}
    )
    made = make_rollouts(job, groups, MAKERS)
    assert made.tokens.shape == (20, 3, 5) and len(made.facts.writer) == 64
    with pytest.raises(UserError, match="there is no folder no/where"):
        make_rollouts(job.model_copy(update={"writer": Path("no/where")}), groups, MAKERS)


def test_without_the_library_it_says_what_to_install(exported, monkeypatch):
    import sys

    from megarc.tiers.huggingface import HuggingFaceWriter

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="pip install transformers"):
        HuggingFaceWriter(exported[1], WRITES, TAGS, torch.device("cpu"), None)
