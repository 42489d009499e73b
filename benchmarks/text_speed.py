"""How fast a source of kind text gives windows: tokens per core-second, packing and reading together.

    python benchmarks/text_speed.py --text FILE --tokenizers a.model tokenizer.json     rows of your own
    python benchmarks/text_speed.py                                                     source code found here

A process of its own reads every window of the first epoch, in batches of 8. One packer works beside it, as in a run.
The CPU time of both counts, from the start of the packer. The wanted figure is 3 times the tokens that the model of
configs/models/124M.yaml takes on an H100, shared among 8 cores: 989 TFLOP/s (dense bf16) * 0.5 / (6 * 123.6M) =
667,000 tokens/s (--utilisation), so 250,000 tokens per core-second. Attention, which makes a token dearer, is left out.
Each row is written when it is measured; the same command goes on with the missing rows.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from options import options
from preprocess import prepare, text_file, tokenizers, write

from megarc.corpus import PackSettings, StreamedText, TextRequest
from megarc.corpus.streamed.sections import Text
from megarc.data.text import TextSource
from megarc.errors import run_script
from megarc.report import table
from megarc.window import Window

FLOPS = 989e12  # dense bf16 of an H100 SXM, a second
PARAMETERS = 123.59e6
TIMES, CORES = 3, 8
BATCH = 8
WINDOW = Window(recent=1024, causal=1024, stride=1024)


def main() -> int:
    parser = options(__doc__, "text_speed.json")
    parser.add_argument("--text", type=Path, help="JSON lines with the key text (found here)")
    parser.add_argument("--tokenizers", type=Path, nargs="+", help="files of tokenizers (trained here)")
    parser.add_argument("--megabytes", type=int, default=40, help="of text, where it is found here (40)")
    parser.add_argument("--utilisation", type=float, default=0.5, help="of the H100's peak (0.5)")
    parser.add_argument("--work", type=Path, help="a folder that keeps text and tokenizers for the next time")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # a row's own process
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measured(*arguments.one)))
        return 0
    wanted = TIMES * FLOPS * arguments.utilisation / (6 * PARAMETERS) / CORES
    found = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"rows": {}}
    found |= {"utilisation": arguments.utilisation, "wanted_tokens_per_core_s": round(wanted)}
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        for name, text, tokenizer in rows(arguments, work):
            if name not in found["rows"]:
                found["rows"][name] = row(text, tokenizer, wanted)
                write(arguments.out, found)
    heads = list(next(iter(found["rows"].values())))
    print(table(["", *heads], [[name, *map(str, one.values())] for name, one in found["rows"].items()]))
    return 0


def rows(arguments: argparse.Namespace, work: Path) -> list[tuple[str, Path, Path]]:
    if arguments.text:
        return [(path.name, arguments.text, path) for path in arguments.tokenizers or []]
    prepare(work, arguments.megabytes)
    named = {
        "SentencePiece BPE": "bpe",
        "SentencePiece BPE that normalises": "normalising",
        "SentencePiece unigram": "unigram",
        "Hugging Face BPE": "huggingface",
    }
    text, models = text_file(work, arguments.megabytes), tokenizers(work)
    return [(name, text, models[kind]) for name, kind in named.items()]


def row(text: Path, tokenizer: Path, wanted: float) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", str(text), str(tokenizer)]
    one = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    rate = one["tokens"] / (one["packing"] + one["reading"])
    return {
        "text, MB": round(text.stat().st_size / 1e6),
        "Mtokens": round(one["tokens"] / 1e6, 1),
        "packing, CPU-s": round(one["packing"], 2),
        "reading, CPU-s": round(one["reading"], 2),
        "first batch after, s": round(one["first"], 1),
        "tokens per core-s": round(rate),
        "of the wanted": round(rate / wanted, 1),
    }


def measured(text: str, tokenizer: str) -> dict[str, float]:
    """CPU-seconds of packing and of reading one epoch."""
    start, first = time.monotonic(), 0.0
    with tempfile.TemporaryDirectory() as cache:
        request = TextRequest(path=text, tokenizer=tokenizer, settings=PackSettings())
        before = cpu(resource.RUSAGE_SELF)
        streamed = StreamedText(Text.of(request), Path(cache), workers=1)
        source = TextSource(streamed, WINDOW)
        numbers, k = source.turns(7), 0
        while not streamed.whole or k < len(source):
            last = min(k + BATCH, len(source)) if streamed.whole else k + BATCH
            samples = source.read_many(numbers(np.arange(k, last)))
            first = first or time.monotonic() - start
            assert samples.tokens.shape == (last - k, WINDOW.tokens)
            k = last
        reading = cpu(resource.RUSAGE_SELF) - before
        assert streamed._packer is not None
        streamed._packer.wait()
    return {
        "tokens": float(streamed.ends[-1]),
        "packing": cpu(resource.RUSAGE_CHILDREN),
        "reading": reading,
        "first": first,
    }


def cpu(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    run_script(main)
