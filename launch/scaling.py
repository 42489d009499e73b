"""Fits scaling laws to runs or to a table of points: L(N, D), L(C), and the best size for a budget."""

from __future__ import annotations

import argparse
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _needs  # noqa: F401  (ends where the packages are not there)

from megarc.command import examples
from megarc.command_line import whole_number
from megarc.errors import UserError, run_script
from megarc.paths import user_path

if TYPE_CHECKING:
    from megarc.science.scaling import Frontier, IsoFlop, Point, Surface, SurfaceFit

EXAMPLES = """examples:
  python launch/scaling.py --run runs/a runs/b runs/c runs/d runs/e runs/f runs/g --budget 1e17
  python launch/scaling.py --points points.csv --budget 5.76e23 --plot scaling.png
  python launch/scaling.py --points my.csv --json fit.json --resamples 1000

--points takes comma-separated values with the columns parameters, loss, and tokens or flops. For a run, N is the number
of its parameters (of all experts), D the tokens that it predicted, C its FLOPs by the exact mask, and the loss its last
held-out loss.
Runs that have not finished are named and left out, because their learning rate has not decayed. If tokenizers differ,
the loss is in bits/byte. Intervals contain 95 % of --resamples fits to points drawn with replacement. See
docs/scaling.md."""

_NAMES = {"e": "E", "a": "A", "b": "B", "alpha": "alpha", "beta": "beta", "size_exponent": "best N ~ C^"}
_FEW_AGREE = 0.2  # of the starts


def main() -> int:
    arguments = parser().parse_args()
    from megarc.progress import progress
    from megarc.science.scaling import fit_frontier, fit_surface, flops_factor, isoflops, read_points

    points, unit = [], "nats / token"
    if arguments.points:
        points += read_points(arguments.points)
    if arguments.run:
        found, unit = run_points(arguments.run, arguments.without_embeddings)
        points += found
        if arguments.points and unit != "nats / token":
            print(f"the losses of {arguments.points} are taken as {unit} too, as those of the runs")
    if not points:
        raise UserError("there is nothing to fit; give --points FILE or --run RUN ...")
    factor, spread = flops_factor(points)
    with progress("fits", 1 + arguments.resamples, unit="fits") as bar:
        fit = fit_surface(points, resamples=arguments.resamples, seed=arguments.seed, advance=bar.advance)
    frontier = fit_frontier(points, resamples=arguments.resamples, seed=arguments.seed)
    curves = isoflops(points)
    print(f"{len(points)} points, loss in {unit}, C = {factor:.3g} N D (+- {100 * spread:.0f} %)")
    say(fit, frontier, curves, arguments.budget, factor)
    if arguments.json:
        save_json(arguments.json, fit, frontier, arguments.budget, factor, unit)
    if arguments.plot:
        draw(points, fit, curves, factor, unit, arguments.plot)
    return 0


def run_points(paths: list[Path], without_embeddings: bool) -> tuple[list[Point], str]:
    """The finished runs as points, and the unit of their loss; the others are named."""
    from megarc.model import cost_of
    from megarc.report.run_page import common_unit, read_history, short_names
    from megarc.science.scaling import Point

    runs = [read_history(path, name) for path, name in zip(paths, short_names(paths), strict=True)]
    unit, words = common_unit(runs)
    if words:
        print("the runs have different tokenizers: the loss is in bits/byte")
    points, kinds = [], {}
    for run in runs:
        loss, state = run.final(f"heldout/{unit}"), state_of(run)
        if loss is None or not state.startswith("finished"):
            why = state if loss is not None else "it has no held-out loss, or it is not finite at the end"
            print(f"{run.name} is left out: {why}")
            continue
        experts = run.config.model.experts
        kinds[(experts.count, experts.active, experts.shared) if experts else None] = run.name
        cost = cost_of(run.config.model, run.config.window.build())
        size = cost.parameters - (cost.embedding_parameters if without_embeddings else 0)
        last = run.last
        points.append(Point(run.name, size, last["predicted_tokens"], run.flops(last["samples"]), loss))
    if len(kinds) > 1:
        one, other = list(kinds.values())[:2]
        raise UserError(
            f"{one} and {other} have other numbers of experts (count, active, shared), or one has none: a row meets "
            "another share of their parameters, so one law of N and D does not hold for both; fit them alone"
        )
    return points, unit.replace("_per_", " / ")


def state_of(run: Any) -> str:
    try:
        return str(run.folder.fate())
    except UserError as error:
        return str(error)


def say(
    fit: SurfaceFit, frontier: Frontier | None, curves: list[IsoFlop], budgets: list[float], factor: float
) -> None:
    """The tables, and what to think of them."""
    from megarc.report import table
    from megarc.science.scaling import interval, size_law

    columns = ["L(N, D) = E + A / N^alpha + B / D^beta", "fit", "95 % from", "to"]
    rows = []
    for key, name in _NAMES.items():
        low, high = interval([getattr(one, key) for one in fit.resampled]) if fit.resampled else (None, None)
        rows.append([name, number(getattr(fit.surface, key)), number(low), number(high)])
    print("\n" + table(columns, rows))
    terms = fit.terms
    if fit.flat:
        print(
            f"{fit.flat} of {fit.flat + len(fit.resampled)} resampled fits saw no effect of N or of D and are left "
            "out: the intervals are too narrow; more sizes and budgets would help"
        )
    print(f"{terms.agreeing} of {terms.starts} starts found this minimum")
    if terms.agreeing < _FEW_AGREE * terms.starts:
        print("few starts agree: the points hardly decide between several fits; more sizes and budgets would")
    law = size_law(curves)
    known = sum(curve.best_size is not None for curve in curves)
    print(
        f"isoFLOP parabolas: {known} of {len(curves)} budgets have a minimum inside their sizes"
        + (f"; best N ~ C^{law[1]:.3f}" if law else "")
    )
    if frontier is None:
        print("L(C): fewer than four budgets lower the loss; not fitted")
    else:
        spans = [interval(values) for values in zip(*frontier.resampled, strict=True)]
        (e_low, e_high), _, (low, high) = spans or [(math.nan, math.nan)] * 3
        print(
            f"L(C) = {frontier.e:.4g} + {frontier.k:.4g} / C^{frontier.gamma:.4g} through the best of "
            f"{len(frontier.points)} budgets"
            + (f"; 95 %: E {e_low:.4g} to {e_high:.4g}, exponent {low:.4g} to {high:.4g}" if spans else "")
        )
    if budgets:
        rows = [[f"{budget:.3g}", *best_words(fit, budget, factor)] for budget in budgets]
        columns = ["FLOPs", "best N", "95 %", "best D", "95 %", "D / N", "loss", "95 %"]
        print("\n" + table(columns, rows))
        largest = max(curve.flops for curve in curves)
        if max(budgets) > 10 * largest:
            print(
                f"a budget of more than 10 times the largest run's ({largest:.3g} FLOPs) is far from any point"
            )


def best_words(fit: SurfaceFit, budget: float, factor: float) -> list[str]:
    """The best allocation of a budget with its intervals."""
    from megarc.progress import human
    from megarc.science.scaling import interval

    best, others = fit.surface.best(budget, factor), [one.best(budget, factor) for one in fit.resampled]

    def span(name: str, show: Any) -> str:
        return " to ".join(map(show, interval([getattr(one, name) for one in others]))) if others else "-"

    return [
        human(best.parameters), span("parameters", human), human(best.tokens), span("tokens", human),
        f"{best.tokens / best.parameters:.3g}", f"{best.loss:.4f}", span("loss", lambda value: f"{value:.4f}"),
    ]  # fmt: skip


def number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"


def facts_of(surface: Surface) -> dict[str, float]:
    return {key: getattr(surface, key) for key in _NAMES}


def save_json(
    path: Path, fit: SurfaceFit, frontier: Frontier | None, budgets: list[float], factor: float, unit: str
) -> None:
    """The fit, its intervals and the best allocations, for programs."""
    from dataclasses import asdict

    import orjson

    from megarc.atomic_write import written_atomically
    from megarc.science.scaling import interval

    facts = {
        "unit": unit,
        "flops_factor": factor,
        "surface": facts_of(fit.surface),
        "intervals": {
            key: interval([getattr(one, key) for one in fit.resampled]) for key in _NAMES if fit.resampled
        },
        "resampled": {"kept": len(fit.resampled), "flat": fit.flat},
        "starts": {"agreeing": fit.terms.agreeing, "all": fit.terms.starts},
        "frontier": None if frontier is None else {"e": frontier.e, "k": frontier.k, "gamma": frontier.gamma},
        "best": [asdict(fit.surface.best(budget, factor)) for budget in budgets],
    }
    with written_atomically(path) as file:
        file.write(orjson.dumps(facts, option=orjson.OPT_INDENT_2) + b"\n")


def draw(
    points: list[Point], fit: SurfaceFit, curves: list[IsoFlop], factor: float, unit: str, path: Path
) -> None:
    from megarc.report import ScalingPicture, scaling
    from megarc.science.scaling import interval

    def band(flops: float) -> tuple[float, float]:
        losses = [one.best(flops, factor).loss for one in fit.resampled] or [
            fit.surface.best(flops, factor).loss
        ]
        return interval(losses)

    scaling(
        ScalingPicture(
            budgets=[
                (
                    curve.flops,
                    [p.parameters for p in curve.points],
                    [p.loss for p in curve.points],
                    curve.best_size,
                )
                for curve in curves
                if len(curve.points) > 2
            ],
            predicted=lambda flops, size: fit.surface.loss(size, flops / factor / size),
            compute=[(point.flops, point.loss) for point in points],
            lowest=lambda flops: fit.surface.best(flops, factor).loss,
            band=band,
            unit=unit,
        ),
        path,
    )
    print(f"{path}: isoFLOP curves, and the loss over compute")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=examples(EXAMPLES), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=user_path, nargs="+", default=[], metavar="RUN", help="run folders")
    parser.add_argument("--points", type=user_path, metavar="FILE", help="comma-separated values")
    parser.add_argument(
        "--budget",
        type=above_zero,
        nargs="+",
        default=[],
        metavar="FLOPS",
        help="print the best N and D for each budget",
    )
    parser.add_argument(
        "--without-embeddings", action="store_true", help="do not count embeddings in the N of a run"
    )
    parser.add_argument(
        "--resamples",
        type=partial(whole_number, least=0),
        default=200,
        help="number of fits for the intervals (200)",
    )
    parser.add_argument(
        "--seed", type=partial(whole_number, least=0), default=0, help="seed of the resampling (0)"
    )
    parser.add_argument("--json", type=user_path, metavar="FILE", help="write the fit there too")
    parser.add_argument("--plot", type=user_path, metavar="FILE", help="draw the fit there, as PNG")
    return parser


def above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' must be a number above 0, like 1e18")
    return value


if __name__ == "__main__":
    run_script(main)
