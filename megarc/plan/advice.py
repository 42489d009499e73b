"""What a plan means to people: days, money, and why it is among the best."""

from __future__ import annotations

from dataclasses import dataclass

from megarc.plan.search import Plan
from megarc.plan.step import PARTS
from megarc.train import Lengths, RunConfig

_WORDS = {
    "products": "matrix products", "attention": "attention", "memory": "work by bytes",
    "tensor": "collectives of tensor ranks",
    "context": "keys and values over context ranks", "experts": "rows to experts on other ranks",
    "stages": "sends between stages", "bubble": "the pipeline's bubble",
    "data": "gradients and weights over data ranks", "update": "the update", "exchange": "Muon's exchange",
    "host": "transfers to the host", "fixed": "the rest",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outlook:
    """A whole run: steps of the first size count as many samples as the run has.

    Attributes:
        money: in the currency of the price; None where no price was given.
    """

    days: float
    gpu_hours: float
    money: float | None


def outlook(config: RunConfig, plan: Plan, price: float | None = None) -> Outlook:
    """Of the run's length.

    Args:
        price: of one GPU for an hour.
    """
    lengths = Lengths(config)
    samples = lengths.batches.samples_before(lengths.total)
    hours = samples / config.batch.size * plan.step.seconds / 3600
    gpu_hours = hours * plan.layout.topology.world
    return Outlook(hours / 24, gpu_hours, None if price is None else gpu_hours * price)


def best_three(plans: list[Plan]) -> list[tuple[Plan, str]]:
    """The three fastest that fit and differ in more than their micro-batch, each with a sentence why."""
    found: list[Plan] = []
    for plan in plans:
        if plan.fits and all(_kind(plan) != _kind(other) for other in found):
            found.append(plan)
        if len(found) == 3:
            break
    alone = "the layout that was asked for" if len(plans) == 1 else "the fastest that fits"
    return [(plan, _why(plan, found[0], alone)) for plan in found]


def _kind(plan: Plan) -> tuple[object, ...]:
    layout = plan.layout
    return layout.tensor, layout.context, layout.pipeline, layout.expert, layout.zero, layout.recompute


def _why(plan: Plan, best: Plan, first: str) -> str:
    parts = {name: seconds for name, seconds in plan.step.parts.items() if name != "products"}
    name = max(parts, key=lambda part: parts[part])
    share = 100 * parts[name] / plan.step.seconds
    if plan is best:
        return (
            f"{first}: {100 * plan.step.parts['products'] / plan.step.seconds:.0f} % of its step are "
            f"matrix products, and the largest other part is {_WORDS[name]} with {share:.0f} %"
        )
    slower = 100 * (plan.step.seconds / best.step.seconds - 1)
    gib = best.memory_gib - plan.memory_gib
    memory = f"needs {abs(gib):.1f} GiB {'less' if gib > 0 else 'more'} and " if abs(gib) > 0.05 else ""
    theirs = {part: plan.step.parts[part] - best.step.parts[part] for part in PARTS}
    lost = max(theirs, key=lambda part: theirs[part])
    return f"{memory}is {slower:.1f} % slower: {_WORDS[lost]} takes {theirs[lost]:.3g} s longer a step"
