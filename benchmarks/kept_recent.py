"""What it would cost to keep R's keys and values when the window moves, in place of encoding R again.

    python benchmarks/kept_recent.py            docs/generation.md's figures: trains a small model on the docs' bytes

The window [R 48 | C 16] moves by 16 tokens. Exact: R is encoded again. Kept: the first 16 rows are dropped, and the
others stay as they were encoded: rows of R saw the dropped ones, and rows of C, now in R, did not see what came after
them. Both predict the same 16 held-out tokens of each of many places.
"""

from __future__ import annotations

import json
import runpy
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from options import options

from megarc.attention import on_device
from megarc.errors import run_script
from megarc.interval import Intervals
from megarc.report import table
from megarc.train import load_model

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = options(__doc__, "kept_recent.json")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--places", type=int, default=300)
    arguments = parser.parse_args()
    text = b"\n".join(path.read_bytes() for path in sorted((ROOT / "docs").glob("*.md")))
    cut = len(text) * 9 // 10
    with tempfile.TemporaryDirectory() as folder:
        saved = trained(Path(folder), text[:cut], arguments.steps)
    facts = compared(
        saved, torch.frombuffer(bytearray(text[cut:]), dtype=torch.uint8).long(), arguments.places
    )
    rows = [[name, f"{value:.4f}"] for name, value in facts.items()]
    print(table(["", ""], rows))
    arguments.out.write_text(
        json.dumps({"steps": arguments.steps, "places": arguments.places, **facts}, indent=2) + "\n"
    )
    return 0


def trained(folder: Path, text: bytes, steps: int):
    (folder / "text.txt").write_bytes(text)
    page("data_tools/preprocess.py", "--input", folder / "text.txt", "--output-prefix", folder / "text",
         "--tokenizer-model", "bytes", "--no-append-eod")  # fmt: skip
    page("launch/pretrain.py", f"folder={folder / 'run'}", f"length={steps} steps", "device=cpu", "window.recent=48",
         "window.causal=16", "window.stride=16", "model.layers=2", "model.hidden=96", "model.heads=4",
         "batch.size=16", "batch.micro=16", "optimizer.lr=4e-3", "logging.tensorboard=false", "logging.every=100",
         "logging.peak_flops=1e12", f"data.train=[{{path: {folder / 'text'}}}]")  # fmt: skip
    return load_model(folder / "run")


def page(path: str, *words: object) -> None:
    before = list(sys.argv), list(sys.path)
    sys.argv, sys.path = [path, *map(str, words)], [str((ROOT / path).parent), *sys.path]
    try:
        runpy.run_path(str(ROOT / path), run_name="page")["main"]()
    finally:
        sys.argv, sys.path[:] = before


@torch.inference_mode()
def compared(saved, text: torch.Tensor, places: int) -> dict[str, float]:
    window = saved.config.window.build()
    n, moved, r = window.rows, window.stride, window.recent
    starts = torch.linspace(0, len(text) - n - moved - 2, places).long()
    tokens = text[starts[:, None] + torch.arange(n + moved + 1)]  # [places, n + moved + 1]
    targets = tokens[:, n + 1 :]
    exact = saved.model.logits(tokens[:, moved:-1], slice(r, None), r).log_softmax(-1)
    # The old window's rows, then the new ones, which see neither the dropped rows nor what comes after them.
    row = np.arange(n + moved, dtype=np.int32)
    end = np.where(row < r, r, row + 1).astype(np.int32)
    begin = np.where(row < n, 0, moved).astype(np.int32)
    seen = Intervals(np.tile(begin, (places, 1)), np.tile(end, (places, 1)))
    kept = saved.model.logits(tokens[:, :-1], slice(n, None), on_device(seen, "cpu")).log_softmax(-1)
    nats = {name: -p.gather(-1, targets[..., None])[..., 0] for name, p in (("exact", exact), ("kept", kept))}
    known = slice(0, saved.config.model.tokens)
    divergence = (exact.exp() * (exact - kept).nan_to_num())[..., known].sum(-1)
    other = exact.argmax(-1) != kept.argmax(-1)
    return {
        "exact, nats/token": float(nats["exact"].mean()),
        "kept, nats/token": float(nats["kept"].mean()),
        "kept - exact, nats/token": float((nats["kept"] - nats["exact"]).mean()),
        "standard error of it": float((nats["kept"] - nats["exact"]).mean(1).std() / places**0.5),
        "divergence of kept from exact, nats": float(divergence.mean()),
        "share of tokens whose likeliest successor differs": float(other.float().mean()),
    }


if __name__ == "__main__":
    run_script(main)
