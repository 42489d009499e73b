"""The demo's arms and the model's tests on one GPU, offline: bf16, compiled.

    python benchmarks/gpu/demo.py                        after `make demo` has packed demo/text here
    python benchmarks/gpu/demo.py --device cpu --toy     to see that it runs

Each arm trains with the keys of configs/demo, then all are scored on the same held-out tokens. Written to
benchmarks/results/gpu-demo.json with the device's name: losses, rates, MFU, memory, and how the tests ended.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from options import gpu_options, need_gpu  # noqa: E402

ARMS = {
    "chase, [R|C]": ("chase", []),
    "chase, causal": ("chase", ["window.recent=0", "window.causal=40"]),
    "text, [R|C] s = c": ("text", []),
    "text, causal s = c": ("text", ["window.recent=0", "window.causal=128"]),
    "text, causal s = L": ("text", ["window.recent=0", "window.causal=128", "window.stride=128"]),
}
SHOWN = (
    "train/nats_per_token",
    "speed/processed_tokens_per_second",
    "speed/mfu_exact_mask",
    "memory/peak_gib",
)


def main() -> None:
    parser = gpu_options(__doc__, "gpu-demo.json", toy="a few steps in fp32, no tests")
    arguments = parser.parse_args()
    import torch

    need_gpu(arguments.device)
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
    report = {"device": name, "torch": torch.__version__, "arms": {}}
    with tempfile.TemporaryDirectory() as scratch:
        folders = {arm: Path(scratch) / str(number) for number, arm in enumerate(ARMS)}
        for arm, (config, keys) in ARMS.items():
            report["arms"][arm] = train(config, keys, folders[arm], arguments)
        texts = [word for arm, folder in folders.items() if "text" in arm for word in ("--run", str(folder))]
        scores = Path(scratch) / "scores.json"
        run("launch/evaluate.py", *texts, "--corpus", "demo/text/heldout", "--tokens", "40000", "--stride", "64",
            "--device", arguments.device, "--json", scores)  # fmt: skip
        named = {str(folder): arm for arm, folder in folders.items()}
        report["scores"] = {named[path]: score for path, score in json.loads(scores.read_text()).items()}
    if not arguments.toy:
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", "tests/model", "tests/attention"], cwd=ROOT,
                              capture_output=True, text=True)  # fmt: skip
        report["tests"] = done.stdout.strip().splitlines()[-1]
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def train(config: str, keys: list[str], folder: Path, arguments: argparse.Namespace) -> dict:
    fast = (
        ["length=12steps", "schedule.warmup=2steps"]
        if arguments.toy
        else ["precision=bf16", "execution.compile=true"]
    )
    run("launch/pretrain.py", "--config", f"configs/demo/{config}.yaml", *keys, *fast,
        f"device={arguments.device}", f"folder={folder}")  # fmt: skip
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if SHOWN[0] in line][-1]
    return {what: last[what] for what in SHOWN}


def run(*command: object) -> None:
    subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


if __name__ == "__main__":
    main()
