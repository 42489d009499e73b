"""The answer of a study: a run's file that runs as it stands, with a reason behind each key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from megarc.batchsize.branches import Decision
from megarc.batchsize.micro_batch_search import Trial
from megarc.config import differences, to_dict
from megarc.quantity import Quantity
from megarc.train import Lengths, RunConfig


@dataclass(frozen=True, slots=True)
class Choice:
    """A key of the run, its value, and why."""

    key: str
    value: Any
    why: str


def choices(config: RunConfig, micro: Trial | None, ranks: int, decision: Decision | None) -> list[Choice]:
    """What a study changes in a run.

    Args:
        micro: the trial that is taken; None: none was searched.
        ranks: on which it was searched.
        decision: of branched training; None: it was not done.
    """
    found = _branched(config, decision) if decision else []
    if micro is not None and micro.memory is not None:
        speed = micro.samples_per_second * config.window.build().stride
        why = (
            f"the smallest within a few percent of the fastest: {speed:.0f} predicted tokens/s a rank, "
            f"{micro.memory / 2**30:.2f} GiB, searched on {ranks} rank{'s' * (ranks > 1)}"
        )
        found.append(Choice("batch.micro", micro.size, why))
        found.append(Choice("execution.recompute", micro.recompute, "the faster of those that were tried"))
    return found


def _branched(config: RunConfig, decision: Decision) -> list[Choice]:
    size, multiple = config.batch.size, decision.multiple
    losses = ", ".join(f"{k:g} times: {loss:.4f}" for k, loss in decision.losses.items())
    bound = "" if decision.bounded else "; the largest that was tried, so it may be larger still"
    why = f"{multiple:g} times is the last within {decision.tolerance:g} nats of every smaller one{bound} ({losses})"
    at = str(Quantity(decision.samples, "samples"))
    if config.batch.stages or config.batch.measured:
        # What came before stays, and the rate goes on by batch.rate from batch.size, as the branches' did.
        before = [one for one in Lengths(config).batches.stages if 0 < one.sample < decision.samples]
        listed = [{"at": str(Quantity(one.sample, "samples")), "size": one.size} for one in before]
        stages = [*listed, {"at": at, "size": decision.size}]
        measured = Choice("batch.measured", [], "batch.stages says where it grows")
        return [Choice("batch.stages", stages, why), measured, *_lengths(config)]
    if multiple < 1:
        rate = config.optimizer.lr * multiple**0.5
        return [
            Choice("batch.size", decision.size, why),
            Choice("optimizer.lr", float(f"{rate:.4g}"), f"{config.optimizer.lr:g} times sqrt({multiple:g})"),
            *_lengths(config),
        ]
    found = [Choice("batch.size", size, "as it was, until the place where branches left the run")]
    if multiple == 1:
        return [Choice("batch.size", size, f"larger ones are worse: {why}")]
    stage = {"at": at, "size": decision.size}
    found.append(Choice("batch.stages", [stage], why))
    found.append(
        Choice("batch.rate", "sqrt", "as in the branches: the learning rate times sqrt of the factor")
    )
    return found + _lengths(config)


def _lengths(config: RunConfig) -> list[Choice]:
    """Lengths in steps, or shares of them, would change with the batch: the same samples instead."""
    found = []
    for key, amount in (
        ("length", config.length),
        ("schedule.warmup", config.schedule.warmup),
        ("schedule.decay", config.schedule.decay),
    ):
        if amount.unit == "steps":
            samples = Lengths(config).in_samples(amount)
            found.append(
                Choice(key, str(Quantity(float(samples), "samples")), f"{amount} before the batch changed")
            )
    return found


def as_yaml(config: RunConfig, chosen: Sequence[Choice], heading: str) -> str:
    """The run as YAML that stands for itself: keys that are not defaults, those chosen with their reasons."""
    tree = to_dict(config)
    for choice in chosen:
        *path, last = choice.key.split(".")
        node = tree
        for part in path:
            node = node[part]
        node[last] = choice.value
    shown = {name for name, _, _ in differences(to_dict(RunConfig()), tree)} | {one.key for one in chosen}
    reasons = {choice.key: choice.why for choice in chosen}
    lines = [f"# {line}" for line in heading.splitlines()]
    return "\n".join([*lines, *_lines(tree, shown, reasons)]) + "\n"


def _lines(
    tree: Mapping[str, Any], shown: set[str], reasons: Mapping[str, str], prefix: str = ""
) -> list[str]:
    lines: list[str] = []
    indent = "  " * prefix.count(".")
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value:
            inner = _lines(value, shown, reasons, f"{key}.")
            lines += [f"{indent}{name}:", *inner] if inner else []
        elif key in shown:
            text = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
            lines.append(f"{indent}{name}: {text}" + (f"  # {reasons[key]}" if key in reasons else ""))
    return lines
