"""Makes one tier's roll-outs at every boundary of a source."""

from __future__ import annotations

import argparse
import logging
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples
from megarc.command_line import parsed
from megarc.errors import run_script
from megarc.paths import user_path

if TYPE_CHECKING:
    from megarc.tiers import RolloutsConfig

EXAMPLES = """examples:
  python launch/rollouts.py --config runs/two/stages/rollouts-bottom-for-top.yaml
  torchrun --nproc-per-node 8 launch/rollouts.py --config FILE
  python launch/rollouts.py --config FILE writes.samples=8 to=runs/two/rollouts/eight
  python launch/rollouts.py --keys            every key: type, default, meaning

launch/tiers.py writes such files. Ranks share the boundaries, shard by shard. The same command resumes where a killed
one stopped, on any number of ranks. At each R|C boundary it makes K roll-outs of m tokens, given the tokens up to and
including the boundary's. It writes P.bin, P.idx, P.logp.npy, and P.rollouts.json last."""


def main() -> int:
    arguments = parsed(parser())
    from megarc.config import load
    from megarc.key_reference import reference

    if arguments.keys:
        print(reference(tree()), end="")
        return 0
    config = load(tree(), arguments.config, arguments.overrides)

    from megarc.errors import reported_once
    from megarc.parallel import connect, disconnect, meet
    from megarc.rank_environment import read_rank_environment
    from megarc.science import MAKERS
    from megarc.tiers import make_rollouts

    process = read_rank_environment()
    logging.basicConfig(
        level=logging.INFO if process.rank == 0 else logging.WARNING, format="%(message)s", stream=sys.stderr
    )
    try:
        with reported_once(process.rank == 0):
            # A rank waits at the end for the slowest one: as long as a few shards take.
            groups = connect(meet(process), config.device, timeout=timedelta(hours=12))
            make_rollouts(config, groups, MAKERS)
    finally:
        disconnect()
    return 0


def tree() -> type[RolloutsConfig]:
    """The keys that this page reads."""
    from megarc.tiers import RolloutsConfig

    return RolloutsConfig


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=user_path, help="YAML file of one job")
    parser.add_argument("--keys", action="store_true", help="print every key with type, default, meaning")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys that win over the file's")
    # The deepspeed launcher adds this; the place is read from the environment.
    parser.add_argument("--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    run_script(main)
