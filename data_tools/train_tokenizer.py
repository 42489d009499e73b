"""Trains a SentencePiece tokenizer on your text: T.model, whose decoding gives the text back exactly."""

from __future__ import annotations

import argparse
import sys
import time

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples
from megarc.corpus import RESERVED
from megarc.corpus.inputs.find_files import FORMATS
from megarc.corpus.inputs.sample import sampled_texts
from megarc.corpus.tokenizer.train import train_tokenizer
from megarc.errors import run_script
from megarc.paths import user_path
from megarc.progress import human_bytes

EXAMPLES = """
examples:
  python data_tools/train_tokenizer.py --input data/*.jsonl --output-prefix tokenizer --vocab-size 32000
  python data_tools/train_tokenizer.py --input src --exclude tests --output-prefix code --vocab-size 4096
"""


def main() -> None:
    arguments = parser().parse_args()
    start = time.monotonic()
    texts = sampled_texts(
        arguments.input,
        arguments.exclude,
        arguments.format,
        json_key=arguments.json_keys,
        sample_bytes=arguments.sample_bytes,
        seed=arguments.seed,
        say=lambda line: print(line, file=sys.stderr),
    )
    tokenizer = train_tokenizer(
        texts,
        arguments.output_prefix,
        arguments.vocab_size,
        algorithm=arguments.algorithm,
        reserved=(*RESERVED, *arguments.reserve),
    )
    took = time.monotonic() - start
    print(f"{arguments.output_prefix}.model: {tokenizer.vocabulary_size} tokens, took {took:.1f} s")
    kept = list(tokenizer.reserved.items())
    print(f"  end of document {tokenizer.end_of_document}; {len(kept)} reserved: {kept[0]} to {kept[-1]}")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sample = int(100e6)
    parser.add_argument("--input", nargs="+", required=True, metavar="F", help="as preprocess.py's")
    parser.add_argument("--exclude", nargs="+", default=[], metavar="PATTERN", help="as preprocess.py's")
    parser.add_argument("--json-keys", default="text", metavar="KEY", help="key or column of the text")
    parser.add_argument("--format", choices=FORMATS, help="how to read every input, whatever its name")
    parser.add_argument(
        "--output-prefix", type=user_path, required=True, metavar="T", help="T.model is written"
    )
    parser.add_argument("--vocab-size", type=int, required=True, metavar="V", help="reserved tokens included")
    parser.add_argument("--algorithm", choices=("bpe", "unigram"), default="bpe", help="(bpe)")
    parser.add_argument(
        "--sample-bytes",
        type=int,
        default=sample,
        metavar="N",
        help=f"train on about N bytes, documents drawn at random ({human_bytes(sample)})",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another sample (0)")
    parser.add_argument("--reserve", nargs="+", default=[], metavar="TOKEN", help="more reserved tokens")
    return parser


if __name__ == "__main__":
    run_script(main)
