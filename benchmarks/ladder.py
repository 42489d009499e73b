"""How long counting n-grams takes, and how much memory and disk: text of a given length, made up by Zipf's law.

Made-up text is the hard case: hardly a 5-gram occurs twice, so every sorted run stays as long as the text.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from megarc.progress import progress
from megarc.science.ladder import count_ngrams, counting_work

VOCABULARY = 32_000
ORDERS = (1, 2, 3, 5)
BYTES_A_TOKEN = 4.0  # of English text with such a vocabulary
LONGEST = 250e6  # tokens of 1 GB of text
SHARE_OF_REPEATS = 0.3  # of the text, in pieces of 20 tokens from what stands before


def main() -> None:
    arguments = parser().parse_args()
    measured = []
    for millions in sorted(arguments.millions):
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as name:
            measured.append(measure(Path(name), millions * 10**6, arguments.memory << 20))
        print(json.dumps(measured[-1], indent=2), flush=True)
    if len(measured) > 1:
        tokens, seconds = (np.log([one[key] for one in measured]) for key in ("tokens", "CPU-seconds"))
        exponent = float(np.polyfit(tokens, seconds, 1)[0])
        whole = measured[-1]["CPU-seconds"] * (LONGEST / measured[-1]["tokens"]) ** exponent
        print(
            f"CPU-seconds ~ tokens^{exponent:.3f}; extrapolated to {LONGEST:.3g} tokens: {whole:.0f} CPU-seconds"
        )


def measure(folder: Path, length: int, memory: int) -> dict[str, float]:
    """Counts ``length`` made-up tokens with so many bytes of memory."""
    tokens = written_text(folder / "text", length)
    before, begun = time.process_time(), time.monotonic()
    with (
        progress("n-grams", counting_work(len(tokens), ORDERS), unit="tokens") as bar,
        peak_of(folder) as peak,
    ):
        model = count_ngrams(tokens, VOCABULARY, ORDERS, folder, memory=memory, advance=bar.advance)
    return {
        "tokens": len(tokens),
        "GB of text": len(tokens) * BYTES_A_TOKEN / 1e9,
        "seconds": time.monotonic() - begun,
        "CPU-seconds": time.process_time() - before,
        "peak resident GB, mapped files included": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "tables on disk GB": size_of(folder) / 1e9,
        "most on disk GB": max(peak) / 1e9,
        "different 5-grams": len(model.raw[5].table),
    }


@contextmanager
def peak_of(folder: Path) -> Iterator[list[int]]:
    """Bytes on disk, looked at four times a second."""
    found, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(0.25):
            found.append(size_of(folder))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
        found.append(size_of(folder))


def size_of(folder: Path) -> int:
    """Bytes of the tables and of the sorted runs that they are merged from."""
    total = 0
    for path in folder.glob("*.*"):
        with suppress(FileNotFoundError):  # a run that has just been merged
            total += path.stat().st_size
    return total


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
    parser.add_argument(
        "--millions",
        type=int,
        nargs="+",
        default=[10],
        help="tokens, in millions (10); of several, the exponent of the time too",
    )
    parser.add_argument("--memory", type=int, default=512, help="MiB for counting (512)")
    parser.add_argument("--scratch", type=Path, help="folder on a disk with 150 bytes a token free")
    return parser


if __name__ == "__main__":
    main()
