"""Scores trained models on a packed text: exact cross-entropy, the same targets for all."""

from __future__ import annotations

import argparse
import io
import math
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples
from megarc.command_line import whole_number, widths
from megarc.errors import UserError, run_script
from megarc.paths import user_path

if TYPE_CHECKING:
    from megarc.corpus import IndexedCorpus
    from megarc.inference import SampleLosses, Score
    from megarc.parallel import Groups
    from megarc.tiers import LiveStack
    from megarc.train import SavedModel
    from megarc.window import Window

EXAMPLES = """examples:
  python launch/evaluate.py --run runs/mine --corpus corpora/heldout
  python launch/evaluate.py --run runs/a --run runs/b --corpus corpora/heldout --tokens 100000 --json s.json
  python launch/evaluate.py --run runs/mine/checkpoints/step-000001000 --corpus corpora/heldout --stride 64
  python launch/evaluate.py --run runs/mine --corpus corpora/heldout --average
  python launch/evaluate.py --run runs/nested --corpus corpora/heldout --width 1 --width 1/2 --width 1/4
  python launch/evaluate.py --run runs/mine --corpus corpora/heldout --recent 0,8,64
  python launch/evaluate.py --run runs/mine --corpus corpora/transcripts --segments
  python launch/evaluate.py --run runs/pairs --corpus corpora/pairs --answers --recent 0
  python launch/evaluate.py --run runs/mine --tasks tasks/sums.jsonl tasks/capitals.jsonl
  python launch/evaluate.py --run runs/mine --tasks tasks/arc_local.yaml --as causal
  torchrun --nproc-per-node 4 -- launch/evaluate.py --run runs/long --corpus corpora/heldout --context 4
  python launch/evaluate.py --tiers runs/tiers/two --run runs/tiers/two/bottom --corpus corpora/heldout --tokens 20000

Windows overlap: each scores --stride tokens after the tokens before them. Without --stride, this is the window's own
stride, or half of its rows if that is less. With several runs, the targets are those that all of their windows can
score, and each run is compared with the first one, target by target: this difference has a much smaller standard error
than either loss. A stack of tiers (--tiers) makes its roll-outs at each boundary as it goes and
scores c tokens behind it. bits/byte uses the mean number of bytes per token of the whole corpus.

--recent measures how a model uses R. It scores the same targets again with other numbers of rows of R that see both
ways (0 and the model's own are always included), and with other text in R. It shows how much the loss rises (with the
standard error of the difference, also by row after R), and says whether the model uses R's text, and whether it uses
that R sees both ways.

--tasks asks questions with a right answer: files of JSON lines (multiple choice or cloze), and tasks of lm-eval by
name or YAML file, whose data are on this machine. The prompt is R, and the continuation is C. --as causal scores the
same model without R; the difference is what the mask gives. See docs/evaluation.md.

--segments scores text, code and output of transcripts separately, and gives the mean by the weights that the run was
trained with (docs/interpreter.md).

--answers scores the answers of a corpus of questions and answers (docs/data.md), packed into rows as in training:
R of a document is its question, up to the window's rows of R. With --recent, no R has more rows than given.

Several ranks (torchrun) share one model by tensor parallelism; of these, --context K share the rows of each window, as
in training (docs/long-windows.md)."""


def main() -> int:
    arguments = parser().parse_args()
    if not arguments.tasks and arguments.corpus is None:
        raise UserError("nothing to score; give --corpus P, or --tasks FILE")
    from megarc.inference import ranks_in_use

    with ranks_in_use(arguments.device, arguments.context) as groups, ExitStack() as stack:
        if groups is not None and (arguments.tasks or arguments.tiers):
            raise UserError("--tasks and --tiers run on one rank; start them with python, without a launcher")
        if groups is not None and not groups.first:
            # All ranks find the same; the first one says and writes it.
            stack.enter_context(redirect_stdout(io.StringIO()))
            stack.enter_context(redirect_stderr(io.StringIO()))
            arguments.json = None
        return ask_all(arguments) if arguments.tasks else score(arguments, groups)


def score(arguments: argparse.Namespace, groups: Groups | None) -> int:
    """Scores on the corpus, of what is asked for."""
    from megarc.corpus import IndexedCorpus

    corpus = IndexedCorpus(arguments.corpus)
    stacks = {str(path): open_live(path, corpus, arguments.device) for path in arguments.tiers}
    models = {name: stack.top for name, stack in stacks.items()}
    models |= dict(single_models(arguments, groups))
    if not models:
        raise UserError("nothing to score; give --run or --tiers")
    if arguments.answers:
        answers_all(models, stacks, arguments)
        return 0
    windows = {
        name: stacks[name].window if name in stacks else window_of(saved, arguments.stride)
        for name, saved in models.items()
    }
    if arguments.recent:
        if stacks:
            raise UserError("--recent probes the mask of one model, and --tiers is a stack; give --run alone")
        windows = {name: probe_of(saved, arguments) for name, saved in models.items()}
    first = max(window.first_target for window in windows.values())
    last = len(corpus.tokens)
    if arguments.tokens is not None:
        last = min(first + arguments.tokens, last)
    if arguments.recent:
        probe_all(models, windows, corpus, range(first, last), arguments)
        return 0
    if arguments.segments:
        segment_all(models, stacks, windows, corpus, range(first, last), arguments)
        return 0
    scores = score_all(models, stacks, windows, corpus, range(first, last))
    print(f"{last - first} targets of {arguments.corpus}, +- one standard error")
    print(shown(models, windows, scores))
    if arguments.json:
        write_json(arguments.json, models, windows, scores)
    return 0


def ask_all(arguments: argparse.Namespace) -> int:
    """Each run's scores on the tasks."""
    from megarc.report import table

    if arguments.tiers or arguments.segments or arguments.answers or arguments.recent or arguments.corpus:
        raise UserError(
            "--tasks goes with --run alone; leave --corpus, --tiers, --segments, --answers and --recent out"
        )
    if not arguments.run:
        raise UserError("no model to ask; give --run")
    found, rows = {}, []
    for run, saved in single_models(arguments):
        found[run] = scores = asked(saved, arguments)
        rows += [
            [run, name, what, f"{value:.4f}"]
            for name, values in scores.items()
            for what, value in values.items()
        ]
    print(table(["run", "task", "measure", "value"], rows))
    if arguments.json:
        save(arguments.json, {"as": arguments.mask, "scores": found})
    return 0


def single_models(
    arguments: argparse.Namespace, groups: Groups | None = None
) -> Iterator[tuple[str, SavedModel]]:
    """Each run's model by a name, once for each width that is asked for; in memory when it is asked for."""
    from megarc.parallel import TensorParallel
    from megarc.train import load_model

    tensor = TensorParallel.of(groups) if groups else None
    if not arguments.run and (arguments.average or arguments.width):
        raise UserError("--average and --width choose weights of a run; give --run")
    average = " average" if arguments.average else ""
    for path in arguments.run:
        for width in arguments.width or [None]:
            part = "" if width is None else " width " + ",".join(map(str, width))
            yield (
                f"{path}{average}{part}",
                load_model(path, arguments.device, tensor=tensor, average=arguments.average, widths=width),
            )


def asked(saved: SavedModel, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """A model's scores by task: on our files, and on lm-eval's."""
    from megarc.corpus import load_tokenizer
    from megarc.data import read_task
    from megarc.inference import likelihoods
    from megarc.progress import progress
    from megarc.train import find_tokenizer, padding_ids, same_tokenizer

    causal = arguments.mask == "causal"
    files = [path for path in arguments.tasks if path.endswith((".jsonl", ".json"))]
    others = [name for name in arguments.tasks if name not in files]
    tokenizer = load_tokenizer(find_tokenizer(saved))
    same_tokenizer(saved, tokenizer, "the tokenizer")
    start = None if tokenizer.end is None else tokenizer.end.id
    tasks = [read_task(user_path(path), tokenizer, start) for path in files]
    if len({task.name for task in tasks}) < len(tasks):
        raise UserError("--tasks: two files have one name; rename one")
    scores = {}
    for task in tasks:
        total = sum(len(pair.continuation) for pair in task.pairs)
        with progress(task.name, total, unit="tokens") as bar:
            window = saved.config.window.build()
            likely = likelihoods(
                saved.model, task.pairs, window, causal=causal, never=padding_ids(saved, tokenizer),
                progress=bar.advance,
            )  # fmt: skip
        greedy = [one.greedy for one in likely]
        scores[task.name] = task.results([one.nats for one in likely], greedy)
    if others:
        from megarc.harness import run_lm_eval

        scores |= run_lm_eval(saved, others, folder=arguments.task_folder, causal=causal)
    return scores


def window_of(saved: SavedModel, stride: int | None) -> Window:
    """The model's window, scoring ``stride`` tokens at a time, and at most half of its rows unless given."""
    from megarc.window import Window

    shape = saved.config.window.build()
    if stride is not None and stride > shape.stride:
        raise UserError(
            f"--stride is {stride}, but the window {shape} of {saved.checkpoint} has only {shape.stride} rows "
            "that learned to predict; give no more"
        )
    return Window(shape.recent, shape.causal, stride or min(shape.stride, -(-shape.rows // 2)))


def probe_of(saved: SavedModel, arguments: argparse.Namespace) -> Window:
    """The model's window, scoring the rows behind the longest R that is asked for."""
    from megarc.inference import probe_window

    return probe_window(saved.config.window.build(), arguments.recent, arguments.stride)


def probe_all(
    models: dict[str, SavedModel],
    windows: dict[str, Window],
    corpus: IndexedCorpus,
    targets: range,
    arguments: argparse.Namespace,
) -> None:
    """Scores each model under other masks and with other text in R, prints that, says what it means."""
    from megarc.corpus import load_manifest
    from megarc.inference import probe
    from megarc.inference.recent_probe import work
    from megarc.progress import progress
    from megarc.report import probe_facts, probe_tables, probe_words
    from megarc.train import same_tokenizer

    manifest, recents, probes = load_manifest(corpus.prefix), arguments.recent, {}
    for name, saved in models.items():
        same_tokenizer(saved, manifest and manifest.tokenizer, corpus.name)
        documents = corpus.documents_of if saved.config.data.isolates else None
        with progress(name, len(targets) * work(windows[name], recents), unit="tokens") as bar:
            probes[name] = probe(
                saved.model,
                corpus.tokens,
                windows[name],
                recents,
                targets,
                documents=documents,
                progress=bar.advance,
            )
    print(f"{len(targets)} targets of {arguments.corpus}, +- one standard error")
    print(probe_tables(probes))
    print("\n" + probe_words(probes))
    if arguments.json:
        save(arguments.json, {name: probe_facts(found) for name, found in probes.items()})


def segment_all(
    models: dict[str, SavedModel],
    stacks: dict[str, LiveStack],
    windows: dict[str, Window],
    corpus: IndexedCorpus,
    targets: range,
    arguments: argparse.Namespace,
) -> None:
    """Scores each model on text, code and output of transcripts, prints that."""
    import numpy as np

    from megarc.corpus import load_manifest
    from megarc.data import SEGMENT_KINDS, SegmentsOf, weights_of
    from megarc.inference import window_losses
    from megarc.progress import progress
    from megarc.report import table
    from megarc.train import same_tokenizer

    if stacks:
        raise UserError("--segments scores single models, and --tiers is a stack; give --run alone")
    manifest = load_manifest(corpus.prefix)
    facts = manifest.tokenizer if manifest else None
    kinds_of = SegmentsOf.of(facts and facts.reserved, facts and facts.end_of_document, corpus.name)
    kinds = kinds_of.whole(corpus.tokens[: targets.stop])[targets.start :]
    counts = [int((kinds == kind).sum()) for kind in range(len(SEGMENT_KINDS))]
    rows, found = [], {}
    for name, saved in models.items():
        same_tokenizer(saved, facts, corpus.name)
        documents = corpus.documents_of if saved.config.data.isolates else None
        with progress(name, len(targets), unit="tokens") as bar:
            losses = window_losses(
                saved.model, corpus.tokens, windows[name], targets, documents=documents, progress=bar.advance
            )
        nll = losses[~np.isnan(losses)]
        means = [float(nll[kinds == kind].mean()) if count else math.nan for kind, count in enumerate(counts)]
        weights = np.asarray(weights_of(saved.config.data.train))[kinds]
        weighted = float((weights * nll).sum() / weights.sum()) if weights.any() else math.nan
        rows.append([name, *map(number, means), number(weighted)])
        found[name] = {**dict(zip(SEGMENT_KINDS, means, strict=True)), "by the run's weights": weighted}
    print(f"{len(targets)} targets of {arguments.corpus}, nats/token: "
          + ", ".join(f"{count} {kind}" for kind, count in zip(SEGMENT_KINDS, counts, strict=True)))  # fmt: skip
    print(table(["run", *SEGMENT_KINDS, "by the run's weights"], rows))
    if arguments.json:
        save(arguments.json, found)


def answers_all(
    models: dict[str, SavedModel], stacks: dict[str, LiveStack], arguments: argparse.Namespace
) -> None:
    """Scores each model on the answers of a corpus of pairs, packed as in training, and prints that."""
    from megarc.config import build
    from megarc.corpus import load_manifest
    from megarc.data import DataConfig, open_stream
    from megarc.inference import sample_losses
    from megarc.progress import progress
    from megarc.report import table
    from megarc.train import same_tokenizer

    windows = {name: saved.config.window.build() for name, saved in models.items()}
    if stacks or arguments.segments or arguments.tokens or arguments.stride:
        raise UserError("--answers goes with --run, --recent and --json alone; leave the other options out")
    if len({window.rows for window in windows.values()}) > 1:
        raise UserError(f"--answers: the runs pack documents into rows of different lengths: {windows}")
    longest = max(max(window.recent for window in windows.values()), *(arguments.recent or [0]))
    manifest = load_manifest(arguments.corpus)
    tokenizer = manifest.tokenizer if manifest else None
    rows: list[list[Any]] = []
    found: dict[str, dict[str, float]] = {}
    base: SampleLosses | None = None
    for name, saved in models.items():
        same_tokenizer(saved, tokenizer, str(arguments.corpus))
        packing = saved.config.data.packing if saved.config.data.packs else "best_fit"
        data = build(DataConfig, {"valid": [str(arguments.corpus)], "packing": packing}, "--corpus")
        stream = open_stream(data, "valid", pair_window(windows[name], longest), 0)
        recents: list[int | None] = list(dict.fromkeys([windows[name].recent, *(arguments.recent or [])]))
        with progress(name, len(stream), unit="rows") as bar:
            scored = sample_losses(saved.model, stream, len(stream), recents=recents, progress=bar.advance)
        base = base or scored[0]
        for recent, losses in zip(recents, scored, strict=True):
            more, error = (None, None) if losses is base else losses.above(base)
            own = "its own" if recent == windows[name].recent else "other"
            rows.append(
                [
                    name,
                    f"{recent} ({own})",
                    number(losses.nats),
                    number(losses.error),
                    number(more),
                    number(error),
                ]
            )
        found[name] = {str(recent): losses.nats for recent, losses in zip(recents, scored, strict=True)}
    targets = int(base.weights.sum()) if base else 0
    print(f"{targets} tokens of answers in {arguments.corpus}, +- one standard error")
    print(table(["run", "most rows of R", "nats/token", "+-", "to the first", "+- of it"], rows))
    if arguments.json:
        save(arguments.json, found)


def pair_window(window: Window, recent: int) -> Window:
    """``window`` with the longest R that is asked for; fewer rows of it are then taken away."""
    from megarc.window import Window

    if recent >= window.rows:
        raise UserError(f"--recent asks for {recent} rows of R in rows of {window.rows}; give fewer")
    return Window(recent, window.rows - recent, 1)


def open_live(path: Path, corpus: IndexedCorpus, device: str) -> LiveStack:
    """A stack, for a text whose manifest tells the reserved tokens."""
    from megarc.corpus import load_manifest
    from megarc.tiers import LiveStack, open_stack

    manifest = load_manifest(corpus.prefix)
    facts = manifest.tokenizer if manifest else None
    known = facts and facts.vocabulary_size
    return LiveStack(open_stack(path), facts and facts.reserved, facts and facts.digest, device, known)


def score_all(
    models: dict[str, SavedModel],
    stacks: dict[str, LiveStack],
    windows: dict[str, Window],
    corpus: IndexedCorpus,
    targets: range,
) -> dict[str, Score]:
    """Each model's score on the same targets."""
    from megarc.corpus import load_manifest
    from megarc.inference import evaluate
    from megarc.progress import progress
    from megarc.train import same_tokenizer

    manifest = load_manifest(corpus.prefix)
    known = manifest is not None and manifest.text_bytes
    bytes_per_token = manifest.text_bytes / manifest.tokens if manifest is not None and known else None
    for saved in models.values():
        same_tokenizer(saved, manifest and manifest.tokenizer, corpus.name)
    scores = {}
    for name, saved in models.items():
        isolated = saved.config.data.isolates
        with progress(name, len(targets), unit="tokens") as bar:
            if name in stacks:
                scores[name] = stacks[name].evaluate(
                    corpus.tokens, targets, bytes_per_token=bytes_per_token, progress=bar.advance
                )
                continue
            scores[name] = evaluate(
                saved.model,
                corpus.tokens,
                windows[name],
                targets,
                documents=corpus.documents_of if isolated else None,
                bytes_per_token=bytes_per_token,
                progress=bar.advance,
            )
    return scores


def shown(models: dict[str, SavedModel], windows: dict[str, Window], scores: dict[str, Score]) -> str:
    """The table; with several runs, how far each lies below the first."""
    from megarc.report import table

    base = next(iter(scores.values()))
    columns = ["run", "window", "step", "nats/token", "+-", "bits/token", "bits/byte"]
    rows: list[list[Any]] = []
    for name, score in scores.items():
        row = [name, windows[name], models[name].standing.step, number(score.nats_per_token)]
        row += [number(score.standard_error), number(score.bits_per_token), number(score.bits_per_byte)]
        if len(scores) > 1:
            lower, error = score.lower_than(base)
            row += [None, None] if score is base else [f"{-lower:+.4f}", number(error)]
        rows.append(row)
    return table(columns + (["to the first", "+- of it"] if len(scores) > 1 else []), rows)


def number(value: float | None) -> str | None:
    return None if value is None or math.isnan(value) else f"{value:.4f}"


def write_json(
    path: Path, models: dict[str, SavedModel], windows: dict[str, Window], scores: dict[str, Score]
) -> None:
    """The same numbers, for programs."""
    facts = {
        name: {
            "nats_per_token": score.nats_per_token,
            "standard_error": None if math.isnan(score.standard_error) else score.standard_error,
            "bits_per_token": score.bits_per_token,
            "bits_per_byte": score.bits_per_byte,
            "tokens": score.tokens,
            "first_target": score.targets.start,
            "window": str(windows[name]),
            "checkpoint": str(models[name].checkpoint),
            "step": models[name].standing.step,
        }
        for name, score in scores.items()
    }
    save(path, facts)


def save(path: Path, facts: dict[str, Any]) -> None:
    """``facts`` as JSON, whole or not at all."""
    import orjson

    from megarc.atomic_write import written_atomically

    with written_atomically(path) as file:
        file.write(orjson.dumps(facts, option=orjson.OPT_INDENT_2) + b"\n")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run",
        type=user_path,
        action="append",
        default=[],
        help="run folder or checkpoint; may be given again",
    )
    parser.add_argument(
        "--tiers",
        type=user_path,
        action="append",
        default=[],
        help="folder of a stack of tiers; may be given again",
    )
    parser.add_argument(
        "--average", action="store_true", help="score the runs' averaged weights (average.decay, .last_k)"
    )
    parser.add_argument(
        "--width",
        type=widths,
        action="append",
        metavar="W[,W]",
        help="width of a nested model, or one for each layer; may be given again (the widest)",
    )
    parser.add_argument(
        "--corpus", type=user_path, metavar="P", help="packed corpus: the prefix of P.bin, P.idx, P.json"
    )
    parser.add_argument(
        "--tasks", nargs="+", metavar="FILE_OR_NAME", help="JSON lines of questions, or tasks of lm-eval"
    )
    parser.add_argument("--task-folder", type=user_path, metavar="D", help="more task files for lm-eval")
    parser.add_argument(
        "--as", dest="mask", choices=("window", "causal"), default="window", help="mask of --tasks (window)"
    )
    parser.add_argument("--segments", action="store_true", help="score text, code and output separately")
    parser.add_argument("--answers", action="store_true", help="score only the answers of pairs")
    parser.add_argument("--stride", type=whole_number, help="tokens that each window scores")
    parser.add_argument(
        "--recent",
        type=numbers,
        metavar="0,8,64",
        help="score with these numbers of rows of R instead, and with other text in R",
    )
    parser.add_argument("--tokens", type=whole_number, help="score only this many tokens (all)")
    parser.add_argument(
        "--context",
        type=whole_number,
        default=1,
        metavar="K",
        help="ranks that share the rows of each window (1)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="device that scores (cpu)")
    parser.add_argument("--json", type=user_path, metavar="FILE", help="write the scores there too")
    return parser


def numbers(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' must be whole numbers with commas between, like 0,8,64")
    return [int(part) for part in parts]


if __name__ == "__main__":
    run_script(main)
