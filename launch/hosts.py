"""Asks every host of a hostfile whether a run can start there; changes nothing."""

from __future__ import annotations

import argparse

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples
from megarc.errors import UserError, run_script
from megarc.paths import user_path

EXAMPLES = """examples:
  python launch/hosts.py hostfile
  python launch/hosts.py hostfile --world 16     also that the slots add up to 16"""


def main() -> None:
    arguments = parser().parse_args()
    from megarc.parallel import ask_hosts, read_hostfile
    from megarc.report import table

    hosts = read_hostfile(arguments.hostfile)
    answers = ask_hosts(hosts, arguments.patience)
    rows = [
        (
            host.name,
            host.slots,
            host.facts.get("gpus"),
            host.facts.get("torch"),
            "; ".join(host.problems) or "good",
        )
        for host in answers
    ]
    print(table(["host", "slots", "GPUs", "torch", ""], rows))
    world, wrong = sum(hosts.values()), [host.name for host in answers if host.problems]
    if arguments.world and arguments.world != world:
        raise UserError(f"the slots of {arguments.hostfile} add up to {world}, not to {arguments.world}")
    if wrong:
        raise UserError(f"{len(wrong)} of {len(hosts)} hosts cannot take part: {', '.join(wrong)}")
    print(f"{len(hosts)} hosts, {world} ranks: say parallel.world={world}")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("hostfile", type=user_path, help="lines like: node-1 slots=8; see hostfile.example")
    parser.add_argument("--world", type=int, metavar="N", help="ranks that the slots must add up to")
    parser.add_argument(
        "--patience", type=float, default=60, metavar="S", help="seconds to wait for a host (60)"
    )
    return parser


if __name__ == "__main__":
    run_script(main)
