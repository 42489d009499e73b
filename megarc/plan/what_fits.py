"""If no layout fits: how near the nearest one comes, and which changes would fit; each of them has been planned."""

from __future__ import annotations

from collections.abc import Iterator

from megarc.errors import UserError
from megarc.plan.known_devices import KNOWN
from megarc.plan.layout_words import parse_layout
from megarc.plan.search import Layout, Plan, Planner

_TIMES = (2, 4, 8, 16, 32, 64)  # as many GPUs
_SHOWN = 3


def what_would_fit(planner: Planner, plans: list[Plan], gpus: int) -> str:
    """How near the nearest of ``plans`` comes, none of which fits ``gpus`` devices, and what would fit.

    Each change that it names has been planned, and fits; a device is named where the layout of least memory fits it.
    """
    least = min(plans, key=lambda plan: plan.memory_gib)
    state = least.memory_gib - planner.device.reserved_gib - least.memory.step / 2**30
    found = [f"{words} ({plan.memory_gib:.1f} GiB)" for words, plan in _changed(planner, least)]
    found += [
        f"--gpus {plan.layout.topology.world} ({plan.layout}: {plan.memory_gib:.1f} GiB)"
        for plan in _more_gpus(planner, gpus)
    ]
    device = planner.device
    found += [
        f"--device {name}"
        for name, other in KNOWN.items()
        if other.kind == device.kind
        and other.memory_gib - other.reserved_gib >= least.memory_gib - device.reserved_gib
    ][:_SHOWN]
    return (
        f"the least memory is {least.memory_gib:.1f} GiB ({least.layout}), of which {state:.1f} GiB are weights, "
        f"optimizer and buffers; a device has {device.memory_gib:.1f} GiB. What would fit: "
        + ("; ".join(found) or "a smaller model or a shorter window. None of these helps: a smaller micro-batch, "
           f"recomputation, offloading, {_TIMES[-1]} times as many GPUs, a larger known device")
    )  # fmt: skip


def _changed(planner: Planner, plan: Plan) -> list[tuple[str, Plan]]:
    """Layouts that fit and differ in micro-batch, recomputation or ZeRO alone; else in all of them; else offloaded."""
    layout = plan.layout
    smaller = {
        "micro=1": layout.micro_batch > 1,
        "recompute=full": layout.recompute != "full",
        "zero=3": layout.zero < 3 and layout.pipeline == 1 and layout.data * layout.context > 1,
    }
    single = [words for words, can in smaller.items() if can]
    offload = ["offload=optimizer"] if layout.offload == "none" and layout.pipeline == 1 else []
    for changes in (single, [",".join(single)], [",".join([*single, *offload])]):
        planned = [(words, other) for words in changes for other in _planned(planner, layout, words)]
        fitting = [(words, other) for words, other in planned if other.fits]
        if fitting:
            return fitting
    return []


def _planned(planner: Planner, layout: Layout, words: str) -> Iterator[Plan]:
    try:
        other, _ = parse_layout(f"{layout},{words}", planner.config, layout.topology.world)
    except UserError:
        return  # what a run would refuse
    yield planner.plan(other)


def _more_gpus(planner: Planner, gpus: int) -> Iterator[Plan]:
    """The thriftiest layout of the smallest number of GPUs that is enough."""
    for times in _TIMES:
        plans = planner.thrifty(gpus * times)
        best = min(plans, key=lambda plan: plan.memory_gib, default=None)
        if best is not None and best.fits:
            yield best
            return
