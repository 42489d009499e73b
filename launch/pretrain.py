"""Pretrains a language model from a configuration."""

from __future__ import annotations

import argparse
import sys
from contextlib import AbstractContextManager, ExitStack
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples
from megarc.command_line import parsed, whole_number
from megarc.errors import EXIT_SAVED, UserError, run_script
from megarc.lean_imports import uncollected
from megarc.paths import user_path

if TYPE_CHECKING:
    from megarc.train import Observer, RunConfig, RunFolder, Start

EXAMPLES = """examples:
  deepspeed launch/pretrain.py --config configs/runs/tiny.yaml
  deepspeed --num_accelerators 2 launch/pretrain.py --config configs/runs/tiny.yaml parallel.zero=2
  torchrun --nproc-per-node 8 launch/pretrain.py --config configs/runs/talk.yaml precision=bf16
  python launch/pretrain.py --config configs/runs/tiny.yaml optimizer.lr=3e-4 folder=runs/lower
  srun -N 2 --ntasks-per-node 8 python launch/pretrain.py --config FILE --check      lists the ranks, times their links
  python launch/pretrain.py --config configs/runs/tiny.yaml --explain-memory     predicted and measured memory
  torchrun --nproc-per-node 2 launch/pretrain.py --config FILE --verify-determinism     are steps bit-equal?
  python launch/pretrain.py --keys            every key: type, default, meaning

The same command resumes from the newest checkpoint of its run folder."""


def main() -> int:
    arguments = parsed(parser())
    from megarc.config import load
    from megarc.key_reference import reference
    from megarc.train import RunConfig, RunFolder

    if arguments.keys:
        print(reference(tree()), end="")
        return 0
    if not (arguments.dry_run or arguments.fate):
        return run(arguments)
    config = load(RunConfig, arguments.config, arguments.overrides)
    if arguments.dry_run:
        from megarc.plan import as_table, dry_run

        print(as_table(dry_run(config, arguments.world_size, arguments.rank)))
        return 0

    return tell_fate(RunFolder(config.folder), arguments.since)


def tree() -> type[RunConfig]:
    """The keys that this page reads."""
    from megarc.train import RunConfig

    return RunConfig


def run(arguments: argparse.Namespace) -> int:
    """One rank of the run, or of the check of its start."""
    from megarc.config import load
    from megarc.rank_environment import read_rank_environment
    from megarc.train import RunConfig, RunFolder, first_look

    def read() -> RunConfig:
        return load(RunConfig, arguments.config, arguments.overrides)

    place = read_rank_environment()
    first_look(place, read)  # before torch is imported below

    with uncollected():
        from megarc.parallel import disconnect
        from megarc.science import MAKERS
        from megarc.tiers import makers
        from megarc.train import Ending, pretrain, start

    try:
        begun = start(place, read, timedelta(seconds=arguments.patience))
        if arguments.check:
            return show(begun)
        if arguments.verify_determinism:
            return verify(begun, arguments.verify_determinism)
        with ExitStack() as stack:
            watch = [stack.enter_context(memory_watch())] if arguments.explain_memory else []
            ending = pretrain(begun.config, begun.groups, makers(MAKERS), explain_memory, watch)
        if begun.groups.first:
            draw(RunFolder(begun.config.folder))
    finally:
        disconnect()
    return EXIT_SAVED if ending is Ending.SAVED else 0


def explain_memory(config: RunConfig, world: int, rank: int) -> str:
    """Where memory goes; its parts are imported where memory was not enough."""
    from megarc.plan import explain_memory

    return explain_memory(config, world, rank)


def memory_watch() -> AbstractContextManager[Observer]:
    """For --explain-memory."""
    from megarc.plan import explained_memory

    return explained_memory()


def show(begun: Start) -> int:
    """Who came, and how fast each link is."""
    from megarc.report import table

    if begun.groups.first:
        ranks = [(one.rank, one.host, one.process, one.device) for one in begun.present]
        print(table(["rank", "host", "process", "device"], ranks))
        print("all with " + ", ".join(f"{name} {value}" for name, value in begun.present[0].same.items()))
        links = [
            (
                link.dimension,
                link.kind,
                f"{link.ranks}",
                f"{1e3 * link.seconds:.2f}",
                "slow" if link.slow else "",
            )
            for link in begun.links
        ]
        if links:
            print(table(["dimension", "what", "ranks", "ms for 1 MiB", ""], links))
    return 0


def verify(begun: Start, steps: int) -> int:
    """Whether steps give the same bits again; 0 where they do, otherwise 1."""
    from megarc.science import MAKERS
    from megarc.tiers import makers
    from megarc.train import verify_determinism

    found = verify_determinism(begun.config, begun.groups, makers(MAKERS), steps)
    if begun.groups.first:
        print("\n".join(map(str, found)))
    return int(any(one.first is not None for one in found))


def tell_fate(folder: RunFolder, since: float) -> int:
    """What state.json says, and the exit code that belongs to it: 0 finished, 75 saved, 1 anything else."""
    fate = folder.fate(since)
    print(f"{folder.path}: {fate}")
    return {"finished": 0, "saved": EXIT_SAVED}.get(fate.split(" ")[0], 1)


def draw(folder: RunFolder) -> None:
    """The run's loss curves, and how busy its experts are, where people would rather look than read."""
    from megarc.report import expert_loads, loss_curves

    try:
        loss_curves({folder.path.name: folder.metrics}, folder.plots / "loss.png")
        if folder.experts.exists():
            expert_loads(folder.experts, folder.plots / "experts.png")
    except UserError as error:  # a run without a step has no loss; it ended well all the same
        print(f"no plot: {error}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=user_path, help="YAML file; see configs/runs")
    parser.add_argument("--keys", action="store_true", help="print every key with type, default, meaning")
    parser.add_argument(
        "--dry-run", action="store_true", help="print what one rank would hold and communicate"
    )
    parser.add_argument(
        "--world-size", type=int, default=1, metavar="N", help="number of ranks of --dry-run (1)"
    )
    parser.add_argument("--rank", type=int, default=0, metavar="R", help="rank that --dry-run describes (0)")
    parser.add_argument(
        "--explain-memory",
        action="store_true",
        help="print where memory goes, predicted and measured, after the first step",
    )
    parser.add_argument(
        "--check", action="store_true", help="only connect the ranks, compare them and time their links"
    )
    parser.add_argument(
        "--verify-determinism",
        type=partial(whole_number, least=2),
        nargs="?",
        const=4,
        metavar="K",
        help="take K steps (4; 2 at least) twice, and the second half once more from a checkpoint; say whether all is "
        "bit-equal, or which tensor differed first, at which step and rank",
    )
    parser.add_argument("--fate", action="store_true", help="only print how the run in the folder ended")
    parser.add_argument(
        "--since",
        type=float,
        default=0.0,
        metavar="T",
        help="with --fate: ignore what jobs wrote before this Unix time (0)",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=300,
        metavar="S",
        help="seconds that ranks wait for each other (300)",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys that win over the file's")
    # The deepspeed launcher adds this; the place is read from the environment.
    parser.add_argument("--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    run_script(main)
