"""Checks that activations keep their size over widths and depths, in each parametrization."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples
from megarc.errors import UserError, run_script
from megarc.paths import user_path

if TYPE_CHECKING:
    from megarc.parallel import Groups
    from megarc.science.coordinates import Coordinate
    from megarc.train import RunConfig

PARAMETRIZATIONS = ("standard", "mup", "completep")
EXAMPLES = """examples:
  python launch/coordinate_check.py --config configs/demo/chase.yaml --to runs/coordinates
  python launch/coordinate_check.py --config FILE --to FOLDER --widths 128,256,512,1024 --depths 2,4,8,16
  python launch/coordinate_check.py --config FILE --to FOLDER optimizer.lr=0.01 optimizer.name=muon

Trains models of every width at the first depth, and of every depth at the first width, for a few steps in each
parametrization, in this one process. The first width and depth are the base. FOLDER gets coordinates.json, and
width.png and depth.png: mean |activation| by layer and step. The command prints the slopes after the last step. Where
learning rates transfer, slopes are about 0. Heads keep the width that FILE gives them."""


def main() -> int:
    arguments = parser().parse_args()
    from megarc.config import load
    from megarc.parallel import connect, disconnect, meet
    from megarc.rank_environment import read_rank_environment
    from megarc.train import RunConfig

    config = load(RunConfig, arguments.config, arguments.overrides)
    if (one := read_rank_environment()).world > 1:
        raise UserError(
            f"the check runs in one process, and a launcher started {one.world}; start it with python"
        )
    logging.getLogger("megarc").setLevel(logging.WARNING)
    try:
        found = measured(config, connect(meet(one), config.device), arguments)
    finally:
        disconnect()
    report(found, arguments.steps, arguments.to)
    return 0


def measured(config: RunConfig, groups: Groups, arguments: argparse.Namespace) -> dict[str, list[Coordinate]]:
    """By parametrization."""
    from megarc.science import MAKERS
    from megarc.science.coordinates import coordinates, shapes_of

    found: dict[str, list[Coordinate]] = {}
    for parametrization in arguments.parametrizations:
        for shape in shapes_of(config, parametrization, arguments.widths, arguments.depths):
            print(f"{parametrization}: width {shape.model.hidden}, depth {shape.model.layers}", flush=True)
            found.setdefault(parametrization, []).extend(coordinates(shape, groups, arguments.steps, MAKERS))
    return found


def report(found: dict[str, list[Coordinate]], steps: int, folder: Path) -> None:
    from megarc.atomic_write import written_atomically
    from megarc.report import coordinate_picture, table
    from megarc.science.coordinates import LAYERS, slopes

    folder.mkdir(parents=True, exist_ok=True)
    with written_atomically(folder / "coordinates.json") as file:
        plain = {name: [one._asdict() for one in listed] for name, listed in found.items()}
        file.write((json.dumps(plain) + "\n").encode())
    lines = []
    for across in ("width", "depth"):
        chosen = {name: series(listed, across) for name, listed in found.items()}
        curves = {name: curves_of(listed, across) for name, listed in chosen.items()}
        coordinate_picture(curves, across, folder / f"{across}.png")
        for name, listed in chosen.items():
            slope = slopes(listed, steps, lambda one, across=across: getattr(one, across))
            lines.append([across, name, *(f"{slope[layer]:+.2f}" for layer in LAYERS)])
    print(f"slopes of log mean |activation| after {steps} steps; about 0 where learning rates transfer")
    print(table(["over", "parametrization", *LAYERS], lines))
    print(f"{folder / 'width.png'}, {folder / 'depth.png'}")


def series(found: Sequence[Coordinate], across: str) -> list[Coordinate]:
    """The models of which only ``across`` differs: the other is the base's."""
    other = "depth" if across == "width" else "width"
    base = getattr(found[0], other)
    return [one for one in found if getattr(one, other) == base]


def curves_of(found: Sequence[Coordinate], across: str) -> dict[str, dict[int, list[tuple[int, float]]]]:
    curves: dict[str, dict[int, list[tuple[int, float]]]] = {}
    for one in found:
        curves.setdefault(one.layer, {}).setdefault(one.step, []).append((getattr(one, across), one.size))
    return curves


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=user_path, required=True, help="a run's YAML file")
    parser.add_argument("--to", type=user_path, required=True, help="folder that is written")
    parser.add_argument("--widths", type=whole_numbers, default=[64, 128, 256, 512], metavar="N,N",
                        help="model.hidden of each; the first is the base (64,128,256,512)")  # fmt: skip
    parser.add_argument("--depths", type=whole_numbers, default=[2, 4, 8, 16], metavar="N,N",
                        help="model.layers of each; the first is the base (2,4,8,16)")  # fmt: skip
    parser.add_argument("--steps", type=int, default=6, help="optimizer steps of each model (6)")
    parser.add_argument("--parametrizations", type=parametrizations, default=PARAMETRIZATIONS, metavar="NAME,NAME",
                        help="some of standard, mup, completep (all)")  # fmt: skip
    parser.add_argument("overrides", nargs="*", help="key=value of the run")
    return parser


def whole_numbers(text: str) -> list[int]:
    found = [int(part) for part in text.split(",")]
    if len(found) < 2 or sorted(set(found)) != found or found[0] < 1:
        raise argparse.ArgumentTypeError("give two or more whole numbers that rise")
    return found


def parametrizations(text: str) -> tuple[str, ...]:
    found = tuple(text.split(","))
    if unknown := [name for name in found if name not in PARAMETRIZATIONS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(PARAMETRIZATIONS)}")
    return found


if __name__ == "__main__":
    run_script(main)
