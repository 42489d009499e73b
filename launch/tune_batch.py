"""Picks the batch: how many samples a step should take, and how many a device takes at once."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples
from megarc.command_line import refuse
from megarc.errors import run_script
from megarc.paths import user_path

if TYPE_CHECKING:
    from megarc.batchsize import StudyConfig

EXAMPLES = """examples:
  python launch/tune_batch.py --config configs/demo/text.yaml            both halves, and a run's file with reasons
  python launch/tune_batch.py --config FILE --launcher "torchrun --standalone --nproc-per-node 8" folder=runs/mine
  python launch/tune_batch.py micro --config FILE tune.micro.memory_gib=4
  python launch/tune_batch.py branches --config FILE --checkpoint runs/mine 'tune.branches.multiples=[1,2,4]'
  python launch/tune_batch.py branches --config FILE --checkpoint runs/mine --submit="--nodes 2 --time 60"
  python launch/tune_batch.py steps --config FILE 'tune.steps.batches=[8,16,32,64,128]' tune.steps.target=4.5
  python launch/tune_batch.py critical --table steps.csv --optimal-batch 256
  python launch/tune_batch.py critical --table 85M.csv --size 85e6 --table 302M.csv --size 302e6 \\
      --optimal-batch 256 --extrapolate 1.2e9
  python launch/tune_batch.py --keys                                     every key: type, default, meaning

A study lives in its own folder (tune.folder) and is made of normal runs; the same command resumes where it
stopped. critical reads tables with the columns batch,steps: optimizer steps to one target loss (empty: never
reached); it prints words, then one JSON object. docs/batch.md has the definitions."""

COMMANDS = ("study", "micro", "branches", "steps", "critical")


def main() -> int:
    words = sys.argv[1:]
    if words and words[0] not in (*COMMANDS, "-h", "--help", "--keys"):
        words = ["study", *words]  # the command that needs no name
    whole = parser()
    arguments, later = whole.parse_known_args(words)
    # Keys may stand behind options too, which argparse's own commands do not allow.
    if later and not hasattr(arguments, "overrides"):
        whole.error(f"unrecognized arguments: {' '.join(later)}")
    if any(word.startswith("-") or "=" not in word for word in later):
        refuse(whole, sorted(later, key=lambda word: not word.startswith("-")))
    if arguments.keys:
        return show_keys()
    if later:
        arguments.overrides += later
    return arguments.run(arguments)


def show_keys() -> int:
    from megarc.key_reference import reference

    print(reference(tree()), end="")
    return 0


def tree() -> type[StudyConfig]:
    """The keys that this page reads."""
    from megarc.batchsize import StudyConfig

    return StudyConfig


def study(arguments: argparse.Namespace) -> int:
    from tuning.study import study

    return study(arguments)


def micro(arguments: argparse.Namespace) -> int:
    from tuning.micro import micro

    return micro(arguments)


def branches(arguments: argparse.Namespace) -> int:
    from tuning.branched import branches

    return branches(arguments)


def steps(arguments: argparse.Namespace) -> int:
    from tuning.steps import steps

    return steps(arguments)


def critical(arguments: argparse.Namespace) -> int:
    from tuning.fit import critical

    return critical(arguments)


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    whole.add_argument("--keys", action="store_true", help="print every key with type, default, meaning")
    whole.set_defaults(run=lambda _: whole.error("give a command, or --config FILE for both halves"))
    commands = whole.add_subparsers(metavar="COMMAND")
    both = commands.add_parser("study", help="both halves; the default command")
    both.set_defaults(run=study)
    fits = commands.add_parser("micro", help="the micro-batch that fits and is fastest")
    fits.set_defaults(run=micro)
    # Launchers add it; the place is read from the environment.
    fits.add_argument("--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    branch = commands.add_parser("branches", help="the critical batch at a checkpoint, by branched training")
    branch.set_defaults(run=branches)
    branch.add_argument("--submit", metavar="OPTIONS", nargs="?", const="",
                        help="as a SLURM array, with these options of sbatch")  # fmt: skip
    sweep = commands.add_parser("steps", help="the critical batch by steps to a held-out loss")
    sweep.set_defaults(run=steps)
    for command in (both, branch):
        command.add_argument("--checkpoint", type=user_path, metavar="RUN",
                             help="run or checkpoint that branches leave; else a trunk is trained")  # fmt: skip
    for command in (both, branch, sweep):
        command.add_argument("--launcher", default="", metavar="WORDS",
                             help="how ranks are started; {port}: a free one (this Python, one rank)")  # fmt: skip
    for command in (both, fits, branch, sweep):
        command.add_argument("--config", type=user_path, help="a run's YAML file; see configs/runs")
        command.add_argument(
            "overrides", nargs="*", metavar="key=value", help="keys that win over the file's"
        )
    _add_critical(commands.add_parser("critical", help="the critical batch of tables of (batch, steps)"))
    return whole


def _add_critical(fit: argparse.ArgumentParser) -> None:
    fit.set_defaults(run=critical)
    fit.add_argument("--table", type=user_path, action="append", required=True, metavar="FILE.csv",
                     help="columns batch,steps; again for more")  # fmt: skip
    fit.add_argument("--optimal-batch", type=float, required=True, metavar="B",
                     help="linear scaling is counted from it, in the table's unit")  # fmt: skip
    fit.add_argument(
        "--overhead", type=float, default=0.2, help="share of extra steps that makes a batch critical (0.2)"
    )
    fit.add_argument("--tolerance", type=float, default=0.0, metavar="SHARE",
                     help="share by which noise may let steps rise with the batch (0)")  # fmt: skip
    fit.add_argument("--size", type=float, action="append", metavar="N",
                     help="size of model or data, once per table: fits a power law over them")  # fmt: skip
    fit.add_argument("--extrapolate", type=float, action="append", metavar="N", help="to this size")


if __name__ == "__main__":
    run_script(main)
