"""Packs text into a corpus that training reads: P.bin, P.idx (as Megatron's) and P.json, its manifest."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

# numpy's linear algebra, which packing never calls, would start a thread a core; each spins for a while.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# pydantic would look for plug-ins in the description of every installed package.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples
from megarc.command_line import whole_number
from megarc.corpus import PackRequest, PackSettings, join_parts, pack, pack_and_join
from megarc.corpus.indexed.manifest import Manifest
from megarc.corpus.inputs.find_files import FORMATS
from megarc.corpus.packing.job_array import this_part
from megarc.errors import UserError, run_script
from megarc.paths import user_path
from megarc.progress import human, human_bytes

EXAMPLES = """
examples:
  # JSON lines, plain or compressed, with 8 processes
  python data_tools/preprocess.py --input data/*.jsonl.zst --output-prefix corpora/web \\
      --tokenizer-model tokenizer.model --workers 8
  # a folder of source code without its tests; every file is a document
  python data_tools/preprocess.py --input src --exclude tests 'test_*' --output-prefix corpora/code \\
      --tokenizer-model tokenizer.model
  # three splits by document, duplicates left out: corpora/web_train, corpora/web_valid, corpora/web_test
  python data_tools/preprocess.py --input @files.txt --output-prefix corpora/web \\
      --tokenizer-model tokenizer.model --split 98,1,1 --drop-duplicates
  # questions and answers: corpora/pairs.answers says where each answer begins; train with data.packing: best_fit
  python data_tools/preprocess.py --input pairs.jsonl --recent-key question --causal-key answer \\
      --output-prefix corpora/pairs --tokenizer-model tokenizer.model
  # chats: everything before the last answer is its question
  python data_tools/preprocess.py --input chats.jsonl --chat-key messages --output-prefix corpora/chats \\
      --tokenizer-model tokenizer.model
  # what data_tools/interpret.py wrote: code and its output between reserved tokens
  python data_tools/preprocess.py --input transcripts.jsonl --transcripts --output-prefix corpora/code \\
      --tokenizer-model tokenizer.model
  # many nodes: under srun or mpirun each process packs its part, the last one joins them
  srun -N 4 --ntasks-per-node 1 python data_tools/preprocess.py ... --workers 32
  # machines without a common disk: pack parts, bring the files of P.parts/ together, join
  python data_tools/preprocess.py ... --part 0/2    # and, elsewhere, --part 1/2
  python data_tools/preprocess.py --output-prefix corpora/web --merge
"""


def main() -> None:
    arguments = parser().parse_args()
    prefix = arguments.output_prefix
    if arguments.merge:
        report(join_parts(prefix, max_bad=arguments.max_bad), prefix)
        return
    for name in ("input", "tokenizer_model"):
        if not getattr(arguments, name):
            raise UserError(f"--{name.replace('_', '-')} is missing; see --help for examples")
    request = PackRequest(
        inputs=arguments.input,
        prefix=prefix,
        tokenizer=arguments.tokenizer_model,
        eod_token=arguments.eod_token,
        settings=settings_of(arguments),
        exclude=arguments.exclude,
        workers=arguments.workers,
        part=this_part(arguments.part),
        engine=arguments.engine,
        max_bad=arguments.max_bad,
        say=lambda line: print(line, file=sys.stderr),
    )
    by_hand = arguments.part is not None and "/" in arguments.part
    report(pack(request) if by_hand else pack_and_join(request), prefix)


def settings_of(arguments: argparse.Namespace) -> PackSettings:
    if len(arguments.json_keys) > 1:
        raise UserError("--json-keys: one key makes one corpus; run again for another, with another prefix")
    check_division(arguments)
    return PackSettings(
        recent_key=arguments.recent_key,
        causal_key=arguments.causal_key,
        chat_key=arguments.chat_key,
        separator=arguments.separator and arguments.separator.replace("\\n", "\n").replace("\\t", "\t"),
        longest_answer=arguments.max_answer_tokens,
        json_key=arguments.json_keys[0],
        format=arguments.format,
        append_end_of_document=arguments.append_eod,
        shuffle_seed=None if arguments.no_shuffle else arguments.shuffle_seed,
        drop_duplicates=arguments.drop_duplicates,
        shortest=arguments.min_bytes,
        longest=arguments.max_bytes,
        transcripts=arguments.transcripts,
        splits=splits_of(arguments.split) if arguments.split else {},
        split_seed=arguments.split_seed,
    )


def check_division(arguments: argparse.Namespace) -> None:
    """
    Raises:
        UserError: for ways to divide documents that do not go together.
    """
    if (arguments.recent_key is None) != (arguments.causal_key is None):
        raise UserError("--recent-key and --causal-key go together: name the keys of question and answer")
    ways = [
        name for name in ("recent_key", "chat_key", "separator") if getattr(arguments, name) not in (None, "")
    ]
    if len(ways) > 1:
        named = " and ".join("--" + name.replace("_", "-") for name in ways)
        raise UserError(f"{named} divide documents in different ways; give one of them")
    if arguments.separator == "":
        raise UserError("--separator is empty; give the text that stands before each answer")
    if ways and arguments.transcripts:
        raise UserError("--transcripts divides documents by their marks; leave out the other keys")
    if arguments.max_answer_tokens is not None and (not ways or arguments.max_answer_tokens < 1):
        raise UserError(
            "--max-answer-tokens needs documents with an answer (see --recent-key) and a number of 1 or more"
        )


def splits_of(text: str) -> dict[str, float]:
    """``98,1,1`` as Megatron has it: train, valid, test."""
    try:
        shares = [float(share) for share in text.split(",")]
    except ValueError:
        shares = []
    if not 2 <= len(shares) <= 3 or min(shares) < 0 or sum(shares) <= 0:
        raise UserError(f"--split {text}: give the shares of train, valid and test, such as 98,1,1")
    return {name: share for name, share in zip(("train", "valid", "test"), shares, strict=False) if share}


def report(manifests: list[Manifest], prefix: Path) -> None:
    for manifest in manifests:
        split = manifest.settings.split if manifest.settings else None
        name = f"{prefix}_{split}" if split else str(prefix)
        print(f"{name}: {manifest.documents} documents, {human(manifest.tokens)} tokens ({manifest.dtype})")
        size, tokens = manifest.text_bytes or 0, max(manifest.tokens, 1)
        print(f"  {human_bytes(size)} of text, {size / tokens:.2f} bytes a token")
    if not manifests:
        print(f"this part of {prefix} is whole; the corpus is there when all are and are merged")
        return
    first = manifests[0]
    for reason, count in first.dropped.items():
        print(f"  {count} documents left out: {reason}")
    rejects = sum(file.rejects for file in first.inputs)
    if rejects:
        print(f"  {rejects} bad lines, listed in {prefix}.rejects.jsonl")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_argument_group("what is read")
    what.add_argument(
        "--input",
        nargs="+",
        metavar="F",
        help="files, folders, globs, s3:// URLs, @LIST (a file of names), - (standard input): .jsonl, .json, .txt, "
        ".md, source code, .parquet, each also .gz, .zst, .xz, .bz2",
    )
    what.add_argument(
        "--exclude",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="paths, or parts of paths, to pass over",
    )
    what.add_argument(
        "--json-keys", nargs="+", default=["text"], metavar="KEY", help="keys of the text (text)"
    )
    what.add_argument(
        "--transcripts", action="store_true", help="marks such as <in:python> become reserved tokens"
    )
    what.add_argument(
        "--recent-key", metavar="KEY", help="key of a question, which the model sees both ways (R)"
    )
    what.add_argument(
        "--causal-key", metavar="KEY", help="key of its answer, which the model learns to predict (C)"
    )
    what.add_argument(
        "--chat-key",
        metavar="KEY",
        help="key of a list of turns (role, content): the last answer is predicted",
    )
    what.add_argument(
        "--separator",
        metavar="TEXT",
        help="divides one text: its answer follows the first TEXT (\\n: a new line)",
    )
    what.add_argument(
        "--max-answer-tokens", type=int, metavar="N", help="a longer answer is a bad line, listed as such"
    )
    what.add_argument("--format", choices=FORMATS, help="how to read every input, whatever its name")
    what.add_argument(
        "--max-bad", type=float, default=0.001, metavar="SHARE", help="allowed share of bad lines (0.001)"
    )
    what.add_argument("--min-bytes", type=int, default=0, metavar="N", help="leave out shorter documents")
    what.add_argument("--max-bytes", type=int, metavar="N", help="leave out longer documents")
    what.add_argument("--drop-duplicates", action="store_true", help="keep only the first of equal documents")
    out = parser.add_argument_group("what is written")
    out.add_argument(
        "--output-prefix", type=user_path, required=True, metavar="P", help="P.bin, P.idx, P.json"
    )
    out.add_argument("--tokenizer-model", metavar="T", help="T.model, tokenizer.json or: bytes")
    out.add_argument("--tokenizer-type", help=argparse.SUPPRESS)  # Megatron's; the file itself tells
    out.add_argument(
        "--append-eod",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="end each document with a token of its own (default)",
    )
    out.add_argument(
        "--eod-token",
        metavar="TOKEN",
        help="that token, or its id; otherwise the eos_token of tokenizer_config.json or special_tokens_map.json "
        "beside the tokenizer, or the tokenizer's own",
    )
    out.add_argument(
        "--shuffle-seed",
        type=partial(whole_number, least=0),
        default=0,
        metavar="N",
        help="documents' random order (0)",
    )
    out.add_argument("--no-shuffle", action="store_true", help="documents in the inputs' order")
    out.add_argument("--split", metavar="98,1,1", help="P_train, P_valid, P_test by document")
    out.add_argument("--split-seed", type=int, default=0, metavar="N", help="another seed, another split (0)")
    how = parser.add_argument_group("how")
    how.add_argument("--workers", type=int, default=1, metavar="W", help="processes (1)")
    how.add_argument(
        "--engine", choices=("auto", "plain"), default="auto", help="auto: gigatoken where it is exact (auto)"
    )
    how.add_argument("--part", metavar="I/N", help="pack this part only; or auto (default), mpi, none")
    how.add_argument("--merge", action="store_true", help="join the parts in P.parts/ instead of packing")
    return parser


if __name__ == "__main__":
    run_script(main)
