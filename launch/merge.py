"""Averages checkpoints to one model, in one safetensors file."""

from __future__ import annotations

import argparse

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples
from megarc.errors import UserError, run_script
from megarc.paths import user_path

EXAMPLES = """examples:
  python launch/merge.py --run runs/mine --last 5 --to merged/mine                   the mean of the last 5
  python launch/merge.py --run runs/mine --last 8 --shape sqrt --to merged/mine      weighed as a 1 - sqrt decay
  python launch/merge.py --checkpoints runs/a runs/b --weights 0.7 0.3 --to merged/ab

The average of checkpoints of a run whose learning rate is constant (schedule.kind wsd or constant) stands for a decay
over them: see docs/optimizers.md. To keep the checkpoints, set checkpoint.keep or checkpoint.keep_every. export.py
describes the file."""


def main() -> int:
    arguments = parser().parse_args()
    from megarc.corpus import copy_tokenizer, describe_tokenizer
    from megarc.inference import export
    from megarc.train import decay_weights, ended_by, find_checkpoint, merged, run_config, tokenizer_file

    paths = arguments.checkpoints or _last(arguments.run, arguments.last)
    found = [find_checkpoint(path).check() for path in paths]
    if arguments.run is not None:
        found.sort(key=lambda checkpoint: checkpoint.standing.step)
    weights = arguments.weights or decay_weights(len(found), arguments.shape)
    config = run_config(found[-1])
    window, end = config.window.build(), ended_by(found[-1].folder, config)
    parameters = merged(found, weights, average=arguments.average)
    export(parameters, config.model, window, arguments.to, layout=arguments.layout, end=end)
    for checkpoint, weight in zip(found, weights, strict=True):
        print(f"{weight / sum(weights):.4f} of {checkpoint.folder}")
    print(f"-> {arguments.to / 'model.safetensors'}")
    tokenizer = tokenizer_file(found[-1].folder, config)
    if tokenizer is not None and tokenizer.exists():
        copy = copy_tokenizer(tokenizer, arguments.to)
        if arguments.layout == "huggingface":
            describe_tokenizer(copy, end, window.rows, config.model.tokens)
    return 0


def _last(run, count):
    from megarc.train import RunFolder, finished

    if count < 2:
        raise UserError(f"--last is {count}; a merge takes two checkpoints or more")
    folders = finished(RunFolder(run).checkpoints)
    if len(folders) < count:
        raise UserError(
            f"{run} has {len(folders)} whole checkpoints, and --last asks for {count}; keep more while it trains, "
            f"with checkpoint.keep={count}"
        )
    return folders[-count:]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", type=user_path, help="run folder, of which the --last checkpoints are taken")
    which.add_argument(
        "--checkpoints",
        type=user_path,
        nargs="+",
        metavar="PATH",
        help="checkpoints, or run folders: their newest",
    )
    parser.add_argument("--last", type=int, default=2, metavar="K", help="how many of --run (2)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--weights", type=float, nargs="+", metavar="W", help="one a checkpoint; their sum becomes 1"
    )
    how.add_argument(
        "--shape", choices=("linear", "cosine", "sqrt"), default="linear",
        help="of the decay that the weights stand for, oldest first; linear: the plain mean (linear)",
    )  # fmt: skip
    parser.add_argument(
        "--average", action="store_true", help="take each run's own average of weights (average.decay)"
    )
    parser.add_argument("--to", type=user_path, required=True, help="folder that is written")
    parser.add_argument("--layout", choices=("megarc", "huggingface"), default="megarc", help="(megarc)")
    return parser


if __name__ == "__main__":
    run_script(main)
