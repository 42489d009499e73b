"""The scripts as a person starts them, on a small text and a tiny run of which every launcher trains the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

from support import processes

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{BIN}:{os.environ['PATH']}"}
PRETRAIN = ["launch/pretrain.py", "--config", "configs/runs/tiny.yaml"]
SMALL = [
    "length=6 steps",
    "batch.size=4",
    "model.layers=2",
    "model.hidden=32",
    "model.ffn=64",
    "window.recent=16",
    "window.causal=16",
    "window.stride=16",
    "logging.every=1",
    "validation.windows=8",
]


def run(*command, code=0, timeout=150, cwd=ROOT, env=ENVIRONMENT, **more):
    """What a command printed, both streams; it must end with ``code`` and, where that is not 0, without a traceback."""
    done = processes.run(
        [str(word) for word in command],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
        timeout=timeout,
        **more,
    )
    assert done.returncode == code, done.stdout
    assert code == 0 or "Traceback" not in done.stdout, done.stdout
    return done.stdout


def python(*command, **more):
    return run(sys.executable, *command, **more)


def make_text(folder):
    """Tokenizer and two corpora, made by the tools from this repository's own sources."""
    tokenizer = folder / "tokenizer"
    train = ["data_tools/train_tokenizer.py", "--vocab-size", 600]
    python(*train, "--input", ROOT / "megarc", "--output-prefix", tokenizer)
    for name, source in (("train", "megarc"), ("heldout", "launch")):
        python("data_tools/preprocess.py", "--input", ROOT / source, "--output-prefix", folder / name,
               "--tokenizer-model", f"{tokenizer}.model", "--append-eod", "--workers", 1)  # fmt: skip
    return folder


def keys_of(text):
    """Keys of a tiny run on ``make_text``'s corpora."""
    return [*SMALL, f"data.train=[{{path: {text}/train}}]", f"data.valid=[{{path: {text}/heldout}}]"]


def losses(folder):
    """All losses of a run, training's and held-out, in order."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line.get("train/nats_per_token", line.get("heldout/nats_per_token")) for line in lines]


def state(folder):
    return json.loads((folder / "state.json").read_text())["state"]
