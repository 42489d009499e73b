"""A small trained run, and pages of launch/ and data_tools/, in this process."""

import runpy
import sys

from support.scripts import ROOT


def page(path, *words):
    """Runs a page's ``main`` as if it was typed."""
    folder, before = str((ROOT / path).parent), (list(sys.argv), list(sys.path))
    sys.argv, sys.path = [path, *map(str, words)], [folder, *sys.path]
    try:
        return runpy.run_path(str(ROOT / path), run_name="page")["main"]()
    finally:
        sys.argv, sys.path[:] = before


def make_run(folder, *keys, steps=2):
    """A run on sums in bytes, ``folder / "run"``, with the window [R 12 | C 6]."""
    text = folder / "text.jsonl"
    text.write_text("".join(f'{{"text": "{a}+{b}={a + b}. "}}\n' for a in range(20) for b in range(20)))
    page("data_tools/preprocess.py", "--input", text, "--output-prefix", folder / "sums",
         "--tokenizer-model", "bytes", "--append-eod")  # fmt: skip
    page("launch/pretrain.py", f"folder={folder / 'run'}", f"length={steps} steps", "device=cpu",
         "window.recent=12", "window.causal=6", "window.stride=6", "model.layers=2", "model.hidden=32",
         "model.heads=4", "model.kv_heads=2", "model.initial_std=0.2", "batch.size=4", "batch.micro=4",
         "logging.tensorboard=false", "logging.peak_flops=1e12", f"data.train=[{{path: {folder / 'sums'}}}]",
         f"data.valid=[{{path: {folder / 'sums'}}}]", "validation.windows=4", *keys)  # fmt: skip
    return folder / "run"
