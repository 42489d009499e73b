"""Two recipes at 124M parameters on one GPU at equal FLOPs, for a machine without a network, in calls of 6 minutes.

    python benchmarks/gpu/recipes.py                     causal and late; the second call goes on
    python benchmarks/gpu/recipes.py --arms causal mix --out $OUT/recipes
    python benchmarks/gpu/recipes.py --size 1M --steps 6 --rows 32 --device cpu      a try without a GPU

The text is this Python's own library as bytes, packed here. A call trains for --minutes and saves; the same command
goes on where it stopped; another size or length needs another --out. Prints loss, FLOPs and what seeing R both ways
saves of each arm that is finished.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def main() -> int:
    arguments = parse()
    os.chdir(ROOT)
    folder = arguments.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    pack(folder)
    file = folder / "compare.yaml"
    file.write_text(configuration(arguments, folder), encoding="utf-8")
    end = time.monotonic() + 60 * arguments.minutes
    from megarc.errors import UserError

    command = [sys.executable, "launch/compare.py", "--config", str(file)]
    # A signal saves the run that is under way; the same command goes on with it.
    process = subprocess.Popen(command)
    try:
        process.wait(timeout=max(1.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait(timeout=120)
        print(f"{arguments.minutes} minutes are over; the same command goes on")
        return 0
    if process.returncode not in (0, 75):
        raise UserError(f"the comparison ended with {process.returncode}; its output above says why")
    return 0


def pack(folder: Path) -> None:
    """Python's own library as bytes: no tokenizer to train, nothing to fetch."""
    library = Path(sysconfig.get_path("stdlib"))
    for name, pattern in (("train", "[!a-c]*.py"), ("heldout", "[a-c]*.py")):
        if not (folder / f"{name}.json").exists():
            command = [sys.executable, "data_tools/preprocess.py", "--input", str(library / pattern),
                       "--output-prefix", str(folder / name), "--tokenizer-model", "bytes", "--append-eod",
                       "--workers", "2"]  # fmt: skip
            subprocess.run(command, check=True)


def configuration(arguments: argparse.Namespace, folder: Path) -> str:
    """The comparison, in YAML."""
    import yaml

    model = yaml.safe_load((ROOT / "configs" / "models" / f"{arguments.size}.yaml").read_text())["model"]
    gpu = arguments.device == "cuda"
    run = {
        "length": f"{arguments.steps} steps",
        "device": arguments.device,
        "precision": "bf16" if gpu else "fp32",
        "window": {"recent": arguments.rows // 2, "causal": arguments.rows // 2},
        "model": {name: value for name, value in model.items() if name != "vocabulary"},
        "data": {"train": [{"path": str(folder / "train")}], "valid": [{"path": str(folder / "heldout")}]},
        "batch": {"size": arguments.batch},
        "optimizer": {"lr": 6e-4},
        "schedule": {"kind": "wsd", "warmup": "0.05 of run"},
        "execution": {"compile": gpu},
        "checkpoint": {"every": "200 steps"},
        "logging": {"tensorboard": False},
    }
    tree = {"folder": str(folder / "compare"), "arms": arguments.arms, "rates": [1.0], "seeds": 1, "targets": 20_000,
            "run": run}  # fmt: skip
    return yaml.safe_dump(tree)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arms", nargs="+", default=["causal", "late"], help="(causal late)")
    parser.add_argument("--size", default="124M", help="a model of configs/models (124M)")
    parser.add_argument("--rows", type=int, default=1024, help="of a window; half of them are R (1024)")
    parser.add_argument("--steps", type=int, default=1500, help="of the causal arm (1500)")
    parser.add_argument("--batch", type=int, default=32, help="samples of a step (32)")
    parser.add_argument("--minutes", type=float, default=6.0, help="of one call (6)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(cuda)")
    parser.add_argument("--out", type=Path, default=Path("runs/recipes/gpu"), help="(runs/recipes/gpu)")
    return parser.parse_args()


if __name__ == "__main__":
    from megarc.errors import run_script

    run_script(main)
