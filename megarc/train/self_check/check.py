"""Two steps of the tiny run on all ranks, the first clipped, the second as it is, against one rank.

In the first a wrong norm shows, in the second a wrong factor, which clipping would take away.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from megarc.errors import UserError, reported_once
from megarc.parallel import Groups, broadcast_object, describe_ranks, gather_objects
from megarc.train.checkpoint import written
from megarc.train.config import RunConfig
from megarc.train.engine import Engine, build_engine
from megarc.train.self_check import passed
from megarc.train.self_check.comparison import TOLERANCE, Difference, wrong_gradients, wrong_weights
from megarc.train.self_check.one_rank import OneRank
from megarc.train.self_check.tiny_run import (
    MICRO_BATCHES,
    RATE,
    clipping,
    micro_batch,
    samples,
    tiny_run,
    uncovered,
)

log = logging.getLogger("megarc")

_CHUNK = 64  # samples that one rank takes at once
_SHOWN = 3


def self_check(config: RunConfig, groups: Groups, folder: Path) -> None:
    """As ``health.self_check`` says; all ranks call it together.

    Args:
        folder: the run's, where the checks that have passed are kept.

    Raises:
        UserError: on every rank alike, where weights, gradients or the gradient norm are not those of one rank.
    """
    mode = config.health.self_check
    if mode == "off" or (mode == "auto" and groups.world.size == 1):
        return
    try:
        tiny = tiny_run(config, groups.topology)
    except UserError as problem:
        if groups.first:
            log.warning(f"the self-check does not cover this layout, and is left out: {problem}")
        return
    facts = _facts(tiny, groups)
    name = passed.digest(facts) if groups.first else ""
    if mode == "auto" and broadcast_object(groups.first and passed.known(name, folder), groups.world):
        return
    begun = time.monotonic()
    found = _where(_differences(tiny, groups), groups)
    if not found:
        if groups.first:
            passed.remember(name, folder, facts)
            without = (
                f"; it does not cover {', '.join(left)}" if (left := uncovered(config, groups.device)) else ""
            )
            log.info(f"self-check: two steps equal to one rank's ({time.monotonic() - begun:.1f} s){without}")
        return
    report = _report(found, config, groups)
    if mode == "warn":
        if groups.first:
            log.warning(f"{report}. The run goes on, since health.self_check is warn")
        return
    with reported_once(groups.first):
        raise UserError(
            f"{report}. This installation trains wrongly with these settings: use another version of DeepSpeed or "
            "torch, another parallel.zero or precision, and report it. health.self_check=warn trains all the same"
        )


def _differences(tiny: RunConfig, groups: Groups) -> list[Difference]:
    """What this rank finds, at the first step that shows anything."""
    one = OneRank(tiny, groups.device)
    tolerance = "fp8" if tiny.execution.fp8 else tiny.precision
    following = {name: state.initial.shape for name, state in one.states.items() if state.follows}
    engine = build_engine(tiny, groups)
    found: list[Difference] = []
    try:
        for step, keys in enumerate((clipping(tiny), tiny), start=1):
            tokens = samples(tiny, step)
            chunks = [micro_batch(part, tiny, groups.device) for part in tokens.split(_CHUNK)]
            expected = one.step(chunks, RATE, keys.optimizer.clip)
            engine.config = keys
            own = tokens.view(groups.data.size, MICRO_BATCHES, *tokens.shape[1:])[groups.data.rank]
            parts = [micro_batch(part, tiny, groups.device, engine.sharing) for part in own.split(1)]
            result = engine.step(parts, RATE)
            found += _of_norm(result.gradient_norm, expected, step, tolerance)
            found += wrong_gradients(engine, one.states, step, tolerance)
            if following:
                one.follow(_momenta(engine, following, groups), RATE)
            found += wrong_weights(engine, one.states, step, tolerance)
            # A wrong norm alone may be a factor of all gradients, which the step that does not clip shows.
            if any(gather_objects(any(one.what != "norm" for one in found), groups.world)):
                break
        return found
    finally:
        engine.close()


def _momenta(engine: Engine, shapes: Mapping[str, torch.Size], groups: Groups) -> dict[str, torch.Tensor]:
    """The momenta of these parameters, whole on every rank."""
    fragments = [part for part in written(engine, range(groups.world.size)) if part.name in shapes]
    own = [(part.name, part.boxes, part.state["exp_avg"].view(-1).float().cpu()) for part in fragments]
    found = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for name, boxes, values in (part for rank in gather_objects(own, groups.world) for part in rank):
        for box, content in zip(boxes, values.split([box.size for box in boxes]), strict=True):
            found[name][box.top : box.bottom, box.left : box.right] = content.view(-1, box.width)
    return found


def _of_norm(norm: torch.Tensor, expected: torch.Tensor, step: int, tolerance: str) -> list[Difference]:
    ratio = float(norm.cpu().float() / expected.cpu())
    if abs(ratio - 1) <= TOLERANCE[tolerance]["norm"]:
        return []
    return [Difference(step, "norm", "the whole gradient", abs(ratio - 1), ratio)]


def _where(found: list[Difference], groups: Groups) -> list[str]:
    """Each difference once, with the ranks that see it; a wrong weight follows from a wrong gradient."""
    seen: dict[tuple[str, str], tuple[Difference, list[int]]] = {}
    for rank, listed in enumerate(gather_objects(found, groups.world)):
        for one in listed:
            seen.setdefault((one.what, one.name), (one, []))[1].append(rank)
    ordered = sorted(seen.values(), key=lambda pair: ("norm", "gradient", "weight").index(pair[0].what))
    return [f"{one.describe()} (rank {describe_ranks(ranks)})" for one, ranks in ordered]


def _report(found: list[str], config: RunConfig, groups: Groups) -> str:
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return (
        f"the self-check failed: a tiny model on these {groups.world.size} ranks (ZeRO {config.parallel.zero}, "
        f"{config.precision}, {groups.topology}) does not train as on one rank: "
        + "; ".join(found[:_SHOWN])
        + more
    )


def _facts(tiny: RunConfig, groups: Groups) -> dict[str, Any]:
    """What the check depends on, beside the software."""
    device = torch.cuda.get_device_name(groups.device) if groups.device.type == "cuda" else "cpu"
    kept = tiny.model_dump(
        mode="json", include={"parallel", "precision", "deepspeed", "model", "optimizer", "execution"}
    )
    return {"ranks": groups.world.size, "device": device, **kept}
