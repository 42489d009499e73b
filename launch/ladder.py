"""Compares simple predictors (n-grams, compressors) and trained models on the same held-out tokens."""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples
from megarc.command_line import whole_number
from megarc.errors import UserError, ended_by_sigterm, run_script
from megarc.paths import user_path

if TYPE_CHECKING:
    from megarc.corpus import IndexedCorpus, TokenizerFacts
    from megarc.science.ladder import Row
    from megarc.train import SavedModel
    from megarc.window import Window

EXAMPLES = """examples:
  python launch/ladder.py --corpus corpora/train --heldout corpora/heldout
  python launch/ladder.py --corpus corpora/train --heldout corpora/heldout --run runs/a --run runs/b --tokens 40000
  python launch/ladder.py --corpus corpora/train --heldout corpora/heldout --tokenizer my/tokenizer.model \\
      --json ladder.json --plot ladder.png

The table has these rows, all scored on the same targets: a uniform guess; unigram to 5-gram (--order) with interpolated
modified Kneser-Ney, counted on --corpus by sorting on disk; the compressors gzip, bzip2, xz, zstd and PPMd (pip install
pyppmd), over all targets together and over pieces of --context tokens; and the runs, scored as `evaluate` scores them.
A compressor's row says in which form it reads the tokens: ids as they are stored, or text (if --tokenizer or a run
gives the tokenizer). docs/ladder.md explains the rows."""

_SMALLEST_MEMORY = 16 << 20


def main() -> int:
    arguments = parser().parse_args()
    from megarc.corpus import IndexedCorpus
    from megarc.science.ladder import uniform
    from megarc.train import load_model, same_tokenizer

    corpus, heldout = IndexedCorpus(arguments.corpus), IndexedCorpus(arguments.heldout)
    facts = same_tokenizer_of(corpus, heldout)
    vocabulary = facts.vocabulary_size if facts else 1 + max(highest(corpus), highest(heldout))
    models = {str(path): load_model(path, arguments.device) for path in arguments.run}
    windows = {name: window_of(saved) for name, saved in models.items()}
    targets = targets_of(heldout, list(windows.values()), arguments)
    # Counting can take minutes: what is wrong with the models and the tokenizer is said before.
    for saved in models.values():
        same_tokenizer(saved, facts, str(heldout.prefix))
    text = text_of(heldout, targets, facts, arguments)
    per_token = bytes_per_token(heldout)
    rows = [uniform(vocabulary, per_token)]
    rows += ngram_rows(corpus, heldout, targets, vocabulary, arguments)
    rows += compressor_rows(corpus, heldout, targets, text, windows, arguments)
    rows += [model_row(name, saved, windows[name], heldout, targets) for name, saved in models.items()]
    rows.sort(key=lambda row: -row.nats_per_token)
    print(f"{len(targets)} targets of {arguments.heldout}, +- one standard error; vocabulary {vocabulary}")
    print(shown(rows))
    if corpus.digest == heldout.digest:
        print(
            "--heldout is the training corpus itself: n-grams have counted its tokens, so these are not held-out losses"
        )
    if per_token is None:
        print("bits/byte is unknown: the held-out corpus has no manifest that counts the bytes of its text")
    if arguments.json:
        save_json(arguments.json, rows)
    if arguments.plot:
        draw(rows, per_token, arguments.plot)
    return 0


def same_tokenizer_of(corpus: IndexedCorpus, heldout: IndexedCorpus) -> TokenizerFacts | None:
    """The tokenizer of both corpora; None where a manifest does not tell."""
    ours, theirs = (one.manifest.tokenizer if one.manifest else None for one in (corpus, heldout))
    if ours and theirs and ours.digest != theirs.digest:
        raise UserError(
            f"{corpus.prefix} and {heldout.prefix} were packed with different tokenizers; pack both with one"
        )
    return ours or theirs


def highest(corpus: IndexedCorpus) -> int:
    """The highest id, where no manifest tells the size of the vocabulary."""
    return int(corpus.tokens.max()) if len(corpus.tokens) else 0


def bytes_per_token(corpus: IndexedCorpus) -> float | None:
    manifest = corpus.manifest
    return manifest.text_bytes / manifest.tokens if manifest and manifest.text_bytes else None


def window_of(saved: SavedModel) -> Window:
    """The model's window, scoring at most half of its rows at a time, as `evaluate` does."""
    from megarc.window import Window

    shape = saved.config.window.build()
    return Window(shape.recent, shape.causal, min(shape.stride, -(-shape.rows // 2)))


def targets_of(heldout: IndexedCorpus, windows: list[Window], arguments: argparse.Namespace) -> range:
    """The positions that every row can score."""
    first = max([arguments.order - 1, *(window.first_target for window in windows)])
    last = len(heldout.tokens)
    if arguments.tokens is not None:
        last = min(first + arguments.tokens, last)
    if last <= first:
        raise UserError(
            f"{heldout.prefix} has {len(heldout.tokens)} tokens, and the first target has {first} before it; "
            "give a longer held-out corpus"
        )
    return range(first, last)


def ngram_rows(
    corpus: IndexedCorpus,
    heldout: IndexedCorpus,
    targets: range,
    vocabulary: int,
    arguments: argparse.Namespace,
) -> list[Row]:
    """unigram, bigram, trigram and the n-gram of --order."""
    from megarc.progress import progress
    from megarc.science.ladder import counting_work, ngrams

    orders = sorted({order for order in (1, 2, 3, arguments.order) if order <= arguments.order})
    counting, scoring = counting_work(len(corpus.tokens), orders), len(orders) * len(targets)
    try:
        if arguments.scratch is not None:
            arguments.scratch.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--scratch: {arguments.scratch} cannot be made: {error.strerror}") from None
    with (
        ended_by_sigterm(),
        tempfile.TemporaryDirectory(prefix="megarc-ladder-", dir=arguments.scratch) as folder,
        progress("n-grams", counting + scoring, unit="tokens") as bar,
    ):
        return list(
            ngrams(
                corpus.tokens, heldout.tokens, targets, vocabulary, orders, Path(folder),
                bytes_per_token=bytes_per_token(heldout), memory=max(_SMALLEST_MEMORY, arguments.memory << 20),
                counting=bar.advance, scoring=bar.advance,
            )
        )  # fmt: skip


def compressor_rows(
    corpus: IndexedCorpus,
    heldout: IndexedCorpus,
    targets: range,
    text: bytes | None,
    windows: dict[str, Window],
    arguments: argparse.Namespace,
) -> list[Row]:
    """Each compressor on ids (whole, and in pieces of a context) and, where there is a tokenizer, on text."""
    from megarc.progress import progress
    from megarc.science.ladder import compressed, compressors, with_dictionary

    context = arguments.context or max([window.rows for window in windows.values()], default=1024)
    ids = heldout.tokens[targets.start : targets.stop].tobytes()
    width, per_token, count = heldout.dtype.itemsize, bytes_per_token(heldout), len(targets)
    form = f"u{8 * width} ids" if heldout.dtype.kind == "u" else f"i{8 * width} ids"
    jobs: list[tuple[Any, bytes, str, int]] = []
    for one in compressors():
        jobs += [(one, ids, form, 0), (one, ids, f"{form}, {context} tokens each", context * width)]
        jobs += [(one, text, "text", 0)] if text is not None else []
    trained = with_dictionary(training_pieces(corpus, context))
    if trained is not None:
        jobs.append((trained, ids, f"{form}, {context} tokens each", context * width))
    rows = []
    with progress("compressors", sum(len(data) for _, data, _, _ in jobs), unit="B") as bar:
        for one, data, words, piece in jobs:
            rows.append(compressed(one, data, count, words, per_token, piece))
            bar.advance(len(data))
    return rows


def training_pieces(corpus: IndexedCorpus, context: int) -> list[bytes]:
    """Pieces of the training corpus for a dictionary, spread over all of it."""
    from megarc.science.ladder import dictionary_bytes

    width = context * corpus.dtype.itemsize
    starts = range(0, len(corpus.tokens) - context + 1, context)
    step = max(1, len(starts) * width // dictionary_bytes())
    return [corpus.tokens[start : start + context].tobytes() for start in starts[::step]]


def text_of(
    heldout: IndexedCorpus, targets: range, facts: TokenizerFacts | None, arguments: argparse.Namespace
) -> bytes | None:
    """The targets as text; None where no tokenizer is at hand."""
    from megarc.corpus import load_tokenizer
    from megarc.train import find_checkpoint, run_config, tokenizer_file

    path = arguments.tokenizer
    if path is None and arguments.run:
        checkpoint = find_checkpoint(arguments.run[0])
        path = tokenizer_file(checkpoint.folder, run_config(checkpoint), facts)
    if path is None:
        return None
    tokenizer = load_tokenizer(path)
    if facts is not None and tokenizer.digest != facts.digest:
        raise UserError(f"{path} is not the tokenizer that {heldout.prefix} was packed with")
    return tokenizer.decode(heldout.tokens[targets.start : targets.stop].tolist()).encode(errors="replace")


def model_row(name: str, saved: SavedModel, window: Window, heldout: IndexedCorpus, targets: range) -> Row:
    """A trained model, scored as `evaluate` does."""
    from megarc.inference import evaluate
    from megarc.progress import progress
    from megarc.science.ladder import Row

    documents = heldout.documents_of if saved.config.data.isolates else None
    with progress(name, len(targets), unit="tokens") as bar:
        score = evaluate(
            saved.model, heldout.tokens, window, targets, documents=documents, progress=bar.advance
        )
    error = score.standard_error
    return Row(
        name,
        f"what a model learned, window {window}",
        "model",
        score.nats_per_token,
        None if math.isnan(error) else error,
        bytes_per_token(heldout),
    )


def shown(rows: list[Row]) -> str:
    from megarc.report import table

    columns = ["predictor", "pattern found", "bits/token", "bits/byte", "nats/token", "+-", "choices"]
    return table(
        columns,
        [
            [row.name, row.pattern, f"{row.bits_per_token:.3f}", number(row.bits_per_byte),
             f"{row.nats_per_token:.3f}", number(row.standard_error), choices_of(row)]
            for row in rows
        ],
    )  # fmt: skip


def choices_of(row: Row) -> str:
    return f"{row.choices:,.0f}" if row.choices < 1e7 else f"{row.choices:.1e}"


def number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def save_json(path: Path, rows: list[Row]) -> None:
    """An object of rows by name."""
    import orjson

    from megarc.atomic_write import written_atomically

    facts = {row.name: row.facts() for row in rows}
    with written_atomically(path) as file:
        file.write(orjson.dumps(facts, option=orjson.OPT_INDENT_2) + b"\n")


def draw(rows: list[Row], per_token: float | None, path: Path) -> None:
    from megarc.report import ladder
    from megarc.science.ladder import TALK, human

    ladder(rows, TALK, None if per_token is None else human(per_token), path)
    print(f"{path}: patterns found, and the choices left")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--corpus",
        type=user_path,
        required=True,
        metavar="P",
        help="prefix of the training corpus, for n-grams",
    )
    parser.add_argument(
        "--heldout", type=user_path, required=True, metavar="Q", help="prefix of the held-out corpus"
    )
    parser.add_argument(
        "--run",
        type=user_path,
        action="append",
        default=[],
        help="run folder or checkpoint; may be given again",
    )
    parser.add_argument("--order", type=whole_number, default=5, help="tokens of the longest n-gram (5)")
    parser.add_argument("--tokens", type=whole_number, help="score only this many held-out tokens (all)")
    parser.add_argument(
        "--context",
        type=whole_number,
        help="tokens in a compressor's piece (the longest window of --run, or 1024)",
    )
    parser.add_argument(
        "--tokenizer", type=user_path, help="tokenizer, to compress the text too (that of the first --run)"
    )
    parser.add_argument(
        "--memory",
        type=whole_number,
        default=512,
        metavar="MIB",
        help="memory for counting n-grams, in MiB (512)",
    )
    parser.add_argument(
        "--scratch",
        type=user_path,
        metavar="FOLDER",
        help="folder for counting n-grams on disk (the system's temporary folder)",
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="device that scores --run (cpu)"
    )
    parser.add_argument("--json", type=user_path, metavar="FILE", help="write the rows there too")
    parser.add_argument("--plot", type=user_path, metavar="FILE", help="draw the ladder there, as PNG")
    return parser


if __name__ == "__main__":
    run_script(main)
