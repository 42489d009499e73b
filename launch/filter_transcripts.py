"""Keeps the pieces of transcripts whose output helps a given model with the text that follows (Toolformer's filter)."""

from __future__ import annotations

import argparse
from collections import Counter

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples
from megarc.errors import UserError, run_script
from megarc.paths import user_path

EXAMPLES = """examples:
  python launch/filter_transcripts.py --run runs/mine --input transcripts.jsonl --output helpful.jsonl
  python launch/filter_transcripts.py --run runs/mine --input t.jsonl --output h.jsonl --threshold 0.5

A piece is kept if its output lowers the loss of the text behind it by more than --threshold nats a token. The loss is
compared with the lower of two others: with the code but without its output, and with neither. Any other piece becomes
text. The model should have been trained on transcripts: a model that has never seen an output cannot use one."""


def main() -> None:
    arguments = parser().parse_args()
    import orjson

    from megarc.atomic_write import written_atomically
    from megarc.corpus import Unbalanced, load_tokenizer, parse_marked, write_marked
    from megarc.interpreter.live import Judge
    from megarc.progress import progress
    from megarc.train import find_tokenizer, load_model, same_tokenizer

    saved = load_model(arguments.run, arguments.device)
    tokenizer = load_tokenizer(arguments.tokenizer_model or find_tokenizer(saved))
    same_tokenizer(saved, tokenizer, "the tokenizer")
    judge = Judge(saved.model, saved.config.window.build(), tokenizer, arguments.threshold)
    counts: Counter[str] = Counter()
    try:
        size = arguments.input.stat().st_size
        lines = arguments.input.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {arguments.input}: {error.strerror}") from None
    with lines, written_atomically(arguments.output) as file, progress("filtering", size, unit="B") as bar:
        for number, line in enumerate(lines, 1):
            try:
                document = orjson.loads(line)
                segments = parse_marked(document["text"])
            except (orjson.JSONDecodeError, KeyError, TypeError, Unbalanced) as error:
                raise UserError(
                    f"{arguments.input}, line {number}: no transcript ({error}); data_tools/interpret.py writes them"
                ) from None
            kept, good, bad = judge.filtered(segments)
            counts += Counter(helps=good, dropped=bad)
            bar.advance(len(line), helps=counts["helps"], dropped=counts["dropped"])
            file.write(orjson.dumps({**document, "text": write_marked(kept), "pieces": good}) + b"\n")
    print(f"{arguments.output}: {counts['helps']} pieces help, {counts['dropped']} do not and are text now")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=user_path, required=True, help="run folder, or a checkpoint in it")
    parser.add_argument(
        "--input", type=user_path, required=True, metavar="F", help="what data_tools/interpret.py wrote"
    )
    parser.add_argument("--output", type=user_path, required=True, metavar="O", help="the same, filtered")
    parser.add_argument("--threshold", type=float, default=0.1, metavar="NATS", help="a token (0.1)")
    parser.add_argument("--tokenizer-model", type=user_path, metavar="T", help="T.model or tokenizer.json")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(cpu)")
    return parser


if __name__ == "__main__":
    run_script(main)
