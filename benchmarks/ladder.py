"""How long counting n-grams takes, and how much memory and disk: text of a given length, made up by Zipf's law.

Made-up text is the hard case: hardly a 5-gram occurs twice, so every sorted run stays as long as the text.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from megarc.progress import progress
from megarc.science.ladder import count_ngrams, counting_work

VOCABULARY = 32_000
ORDERS = (1, 2, 3, 5)
BYTES_A_TOKEN = 4.0  # of English text with such a vocabulary
SHARE_OF_REPEATS = 0.3  # of the text, in pieces of 20 tokens from what stands before


def main() -> None:
    arguments = parser().parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as name:
        folder = Path(name)
        tokens = written_text(folder / "text", arguments.millions * 10**6)
        before, begun = time.process_time(), time.monotonic()
        with progress("n-grams", counting_work(len(tokens), ORDERS), unit="tokens") as bar:
            model = count_ngrams(
                tokens, VOCABULARY, ORDERS, folder, memory=arguments.memory << 20, advance=bar.advance
            )
        facts = {
            "tokens": len(tokens),
            "GB of text": len(tokens) * BYTES_A_TOKEN / 1e9,
            "seconds": time.monotonic() - begun,
            "CPU-seconds": time.process_time() - before,
            "peak resident GB, mapped files included": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            / 1e6,
            "tables on disk GB": sum(path.stat().st_size for path in folder.glob("*.*")) / 1e9,
            "different 5-grams": len(model.raw[5].table),
        }
    print(json.dumps(facts, indent=2))


def written_text(path: Path, length: int) -> np.ndarray:
    """``length`` ids below VOCABULARY by Zipf's law, with repeated pieces, mapped from disk."""
    random = np.random.default_rng(0)
    weights = 1 / np.arange(1, VOCABULARY + 1)
    edges = np.cumsum(weights) / weights.sum()
    with path.open("wb") as file:
        for first in range(0, length, 10**6):
            some = np.searchsorted(edges, random.random(min(10**6, length - first))).astype(np.uint16)
            pieces = some[: len(some) // 20 * 20].reshape(-1, 20)
            again = random.random(len(pieces)) < SHARE_OF_REPEATS
            pieces[again] = pieces[random.integers(0, len(pieces), again.sum())]
            some.tofile(file)
    return np.memmap(path, np.uint16, "r")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=int, default=10, help="tokens, in millions (10)")
    parser.add_argument("--memory", type=int, default=512, help="MiB for counting (512)")
    parser.add_argument("--scratch", type=Path, help="folder on a disk with 150 bytes a token free")
    return parser


if __name__ == "__main__":
    main()
