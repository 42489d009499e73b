"""The options that every benchmark has: its page as the help, a seed, where the results go, a GPU or a toy size."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"


def options(page: str | None, results: str | None = None) -> argparse.ArgumentParser:
    """A parser whose help is the script's docstring.

    Args:
        results: the file under benchmarks/results/ that ``--out`` names where it is not given.
    """
    parser = argparse.ArgumentParser(description=page, formatter_class=argparse.RawDescriptionHelpFormatter)
    if results is not None:
        text = f"where the results go (benchmarks/results/{results})"
        parser.add_argument("--out", type=Path, default=RESULTS / results, help=text)
    return parser


def gpu_options(page: str | None, results: str, toy: str) -> argparse.ArgumentParser:
    """The same for a script of benchmarks/gpu/.

    Args:
        toy: what ``--toy`` makes of it.
    """
    parser = options(page, results)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--toy", action="store_true", help=toy)
    return parser


def need_gpu(device: str) -> None:
    """Ends the script where it was to run on a GPU and there is none."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU here; --device cpu --toy shows that the script runs")
