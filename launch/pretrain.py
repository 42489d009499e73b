"""Pretrains a language model from a configuration."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from megarc.errors import run_script

if TYPE_CHECKING:
    from megarc.train import RunFolder

EXAMPLES = """examples:
  deepspeed launch/pretrain.py --config configs/runs/tiny.yaml
  deepspeed --num_accelerators 2 launch/pretrain.py --config configs/runs/tiny.yaml parallel.zero=2
  torchrun --nproc-per-node 8 launch/pretrain.py --config configs/runs/talk.yaml precision=bf16
  python launch/pretrain.py --config configs/runs/tiny.yaml optimizer.lr=3e-4 folder=runs/lower
  python launch/pretrain.py --keys            every key: type, default, meaning

The same command goes on from the newest checkpoint of its run folder."""


def main() -> int:
    arguments = parse()
    from megarc.config import load, reference
    from megarc.train import RunConfig

    if arguments.keys:
        print(reference(RunConfig), end="")
        return 0
    config = load(RunConfig, arguments.config, arguments.overrides)
    if arguments.dry_run:
        from megarc.plan import as_table, dry_run

        print(as_table(dry_run(config, arguments.world_size, arguments.rank)))
        return 0

    from megarc.parallel import connect, disconnect, place_from_environment
    from megarc.science import MAKERS
    from megarc.train import RunFolder, pretrain

    place = place_from_environment()
    logging.basicConfig(
        level=logging.INFO if place.rank == 0 else logging.WARNING,
        format="%(message)s" if place.rank == 0 else f"rank {place.rank}: %(message)s",
        stream=sys.stderr,
    )
    layout = config.parallel
    groups = connect(
        place,
        config.device,
        tensor=layout.tensor,
        pipeline=layout.pipeline,
        sequence=layout.sequence,
    )
    try:
        pretrain(config, groups, MAKERS)
        if groups.first:
            draw(RunFolder(config.folder))
    finally:
        disconnect()
    return 0


def draw(folder: RunFolder) -> None:
    """The run's loss curves, where people would rather look than read."""
    from megarc.report import loss_curves

    loss_curves({folder.path.name: folder.metrics}, folder.plots / "loss.png")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, help="YAML file; see configs/runs")
    parser.add_argument("--keys", action="store_true", help="print every key with type, default, meaning")
    parser.add_argument("--dry-run", action="store_true", help="what one rank would hold and tell others")
    parser.add_argument("--world-size", type=int, default=1, metavar="N", help="ranks of the dry run")
    parser.add_argument("--rank", type=int, default=0, metavar="R", help="the rank that it is (0)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys that win over the file's")
    # The deepspeed launcher adds this; the place is read from the environment.
    parser.add_argument("--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    run_script(main)
