"""The packing benchmark against a checkout of Megatron-LM, here tools that take its documented flags and no others."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TOOL = """
import argparse, pathlib, sys
sys.path.insert(0, {benchmarks!r})
parser = argparse.ArgumentParser()
for name in ("--input", "--output-prefix", "--tokenizer-model"):
    parser.add_argument(name, required=True)
parser.add_argument("--tokenizer-type", choices=("HuggingFaceTokenizer", "SentencePieceTokenizer"), required=True)
parser.add_argument("--tokenizer-hf-no-include-special-tokens", action="store_true")
parser.add_argument("--append-eod", action="store_true", required=True)
parser.add_argument({own!r}, required=True, **{how!r})
arguments = parser.parse_args()
path = pathlib.Path(arguments.tokenizer_model)
if arguments.tokenizer_type == "HuggingFaceTokenizer":
    assert arguments.tokenizer_hf_no_include_special_tokens
    assert path.is_dir() and (path / "tokenizer_config.json").exists()
from megarc.corpus import PackRequest, PackSettings, pack
settings = PackSettings(append_end_of_document=True, shuffle_seed=None)
pack(PackRequest([arguments.input], pathlib.Path(arguments.output_prefix + "_text_document"), str(path), settings,
                 engine="plain", workers=0, quiet=True))
{more}
"""


@pytest.fixture
def checkout(tmp_path):
    tools = tmp_path / "Megatron-LM" / "tools"
    tools.mkdir(parents=True)

    def write(name, own, how, more=""):
        (tools / name).write_text(TOOL.format(benchmarks=str(BENCHMARKS), own=own, how=how, more=more))

    write("preprocess_data.py", "--workers", {})
    write("preprocess_data_fast.py", "--use-gigatoken", {"action": "store_true"})
    return tools.parent


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("preprocess", "options"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import preprocess

    yield preprocess
    sys.modules.pop("preprocess", None)


@pytest.fixture
def work(tmp_path):
    """A text and a tokenizer of each library."""
    import tokenizers

    from megarc.corpus.tokenizer.train import train_tokenizer

    texts = [f"def f{i}(x):\n    return x + {i}\n" for i in range(300)]
    (tmp_path / "text.jsonl").write_bytes(b"".join(orjson.dumps({"text": text}) + b"\n" for text in texts))
    train_tokenizer(texts, tmp_path / "bpe", 310)
    library = tokenizers.Tokenizer(tokenizers.models.BPE())
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, show_progress=False, special_tokens=["<pad>", "<|endoftext|>"]
    )
    library.train_from_iterator(texts, trainer)
    (tmp_path / "huggingface").mkdir()
    library.save(str(tmp_path / "huggingface" / "tokenizer.json"))
    return tmp_path


def test_megatrons_tools_get_their_flags_and_outputs_are_compared(module, checkout, work):
    arguments = module.argparse.Namespace(megatron=checkout, limit=60)
    text = work / "text.jsonl"
    for model, fast in (
        ("bpe.model", False),
        ("huggingface/tokenizer.json", False),
        ("huggingface/tokenizer.json", True),
    ):
        cost = module.peer(text, work, work / model, arguments, fast=fast)
        assert module.ours(text, work, work / model).tokens == cost.tokens > 300
    theirs = work / "theirs_text_document.bin"
    theirs.write_bytes(b"\1" + theirs.read_bytes()[1:])
    with pytest.raises(RuntimeError, match="differ"):
        module.ours(text, work, work / "huggingface" / "tokenizer.json")


def test_a_tool_whose_child_died_is_ended_and_heard(module, work):
    waits = "import sys, time; print('a child died', file=sys.stderr, flush=True); time.sleep(600)"
    with pytest.raises(module.UserError, match=r"(?s)ended after 1 s.*a child died"):
        module.timed([sys.executable, "-c", waits], work / "none", 1)
    with pytest.raises(module.UserError, match=r"no .*preprocess_data"):
        module.megatrons(work, work / "bpe.model", fast=False)
    assert (
        subprocess.run([sys.executable, str(BENCHMARKS / "preprocess.py"), "--help"], check=False).returncode
        == 0
    )
