"""Scores trained models on a packed text: exact cross-entropy, the same targets for all."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from megarc.errors import UserError, run_script

EXAMPLES = """examples:
  python launch/evaluate.py --run runs/mine --corpus corpora/heldout
  python launch/evaluate.py --run runs/a --run runs/b --corpus corpora/heldout --tokens 100000 --json s.json
  python launch/evaluate.py --run runs/mine/checkpoints/step-000001000 --corpus corpora/heldout --stride 64

Windows overlap: each scores --stride tokens (half of the window's rows unless given), seen with the tokens
before them. With several runs, the targets are those that the longest window can score."""


def main() -> int:
    arguments = parse()
    from megarc.corpus import IndexedCorpus, load_manifest
    from megarc.inference import evaluate
    from megarc.progress import progress
    from megarc.report import table
    from megarc.train import load_model, same_tokenizer
    from megarc.window import Window

    corpus = IndexedCorpus(arguments.corpus)
    manifest = load_manifest(arguments.corpus)
    known = manifest is not None and manifest.text_bytes
    bytes_per_token = manifest.text_bytes / manifest.tokens if manifest is not None and known else None
    models = {str(path): load_model(path, arguments.device) for path in arguments.run}
    windows = {}
    for name, saved in models.items():
        same_tokenizer(saved, manifest and manifest.tokenizer, str(arguments.corpus))
        shape = saved.config.window.build()
        stride = arguments.stride or min(shape.causal, -(-shape.rows // 2))
        windows[name] = Window(shape.recent, shape.causal, stride)
    first = max(window.first_target for window in windows.values())
    last = (
        len(corpus.tokens) if arguments.tokens is None else min(first + arguments.tokens, len(corpus.tokens))
    )
    scores = {}
    for name, saved in models.items():
        with progress(name, last - first, unit="tokens") as bar:
            scores[name] = evaluate(
                saved.model,
                corpus.tokens,
                windows[name],
                range(first, last),
                bytes_per_token=bytes_per_token,
                progress=bar.advance,
            )
    rows = [
        [name, str(windows[name]), models[name].standing.step, f"{score.nats_per_token:.4f}",
         f"{score.standard_error:.4f}", f"{score.bits_per_token:.4f}",
         None if score.bits_per_byte is None else f"{score.bits_per_byte:.4f}"]
        for name, score in scores.items()
    ]  # fmt: skip
    print(f"{last - first} targets of {arguments.corpus}")
    print(table(["run", "window", "step", "nats/token", "+-", "bits/token", "bits/byte"], rows))
    if arguments.json:
        facts = {
            name: {
                "nats_per_token": score.nats_per_token,
                "standard_error": score.standard_error,
                "bits_per_token": score.bits_per_token,
                "bits_per_byte": score.bits_per_byte,
                "tokens": score.tokens,
                "window": str(windows[name]),
                "step": models[name].standing.step,
            }
            for name, score in scores.items()
        }
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run",
        type=Path,
        action="append",
        required=True,
        help="run folder, or checkpoint; again for more",
    )
    parser.add_argument(
        "--corpus", type=Path, required=True, metavar="P", help="prefix of P.bin, P.idx, P.json"
    )
    parser.add_argument("--stride", type=positive, help="tokens that a window scores")
    parser.add_argument("--tokens", type=positive, help="score so many tokens only")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the scores there too")
    return parser.parse_args()


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise UserError(f"'{text}' must be a whole number of 1 or more")
    return int(text)


if __name__ == "__main__":
    run_script(main)
