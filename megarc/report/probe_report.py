"""A probe of R as two tables and a few sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from megarc.inference import Change, Measured, Probe
from megarc.inference.recent_probe import USED
from megarc.report.tables import table


def probe_tables(probes: Mapping[str, Probe]) -> str:
    """What each change costs each model, over all targets and by row behind the boundary."""
    totals: list[list[Any]] = []
    for name, probe in probes.items():
        for what, change in _changes(probe):
            totals.append(
                [name, what, _number(change.loss.mean), _signed(change.more), _number(change.more.error)]
            )
    head = ["run", "scored with", "nats/token", "to its own", "+- of it"]
    return f"{table(head, totals)}\n\nBy row behind R (nats a target, to its own)\n{_by_row(probes)}"


def probe_words(probes: Mapping[str, Probe]) -> str:
    """For each model, whether it uses R's text and whether it uses seeing R both ways."""
    return "\n".join(f"{name}: {_text_words(probe)} {_mask_words(probe)}" for name, probe in probes.items())


def probe_facts(probe: Probe) -> dict[str, Any]:
    """The same numbers, for programs."""

    def of(measured: Measured) -> list[float | None]:
        return [None if math.isnan(value) else value for value in (measured.mean, measured.error)]

    def changes(some: Mapping[int, Change]) -> dict[str, Any]:
        return {
            str(count): {"nats_per_token": of(change.loss), "more": of(change.more),
                         "by_row": [of(part) for part in change.by_row]}
            for count, change in some.items()
        }  # fmt: skip

    return {
        "window": str(probe.window),
        "boundary": probe.boundary,
        "targets": probe.targets,
        "nats_per_token": of(probe.own),
        "rows": [list(rows) for rows in probe.rows],
        "masks": changes(probe.masks),
        "texts": changes(probe.texts),
        "both_ways": of(probe.both_ways),
        "text": of(probe.text),
        "uses_both_ways": bool(_used(probe.both_ways)),
        "uses_text": bool(_used(probe.text)),
    }


def _changes(probe: Probe) -> list[tuple[str, Change]]:
    own = probe.window.recent
    masks = [
        ("causal R" if recent == 0 else f"R of {recent} rows", recent, change)
        for recent, change in probe.masks.items()
    ]
    return [(what + (" (its own)" if recent == own else ""), change) for what, recent, change in masks] + [
        (f"other text in rows 1-{count}", change) for count, change in probe.texts.items()
    ]


def _by_row(probes: Mapping[str, Probe]) -> str:
    groups = next(iter(probes.values())).rows
    if any(probe.rows != groups for probe in probes.values()):
        return "\n".join(_by_row({name: probe}) for name, probe in probes.items())
    rows: list[list[Any]] = []
    for name, probe in probes.items():
        for what, change in _changes(probe):
            if change.more.error > 0 or change.more.mean:
                rows.append([name, what, *(f"{_signed(part)} +- {part.error:.4f}" for part in change.by_row)])
    return table(
        ["run", "scored with", *(str(a) if a == b else f"{a}-{b}" for a, b in groups)],
        rows,
    )


def _text_words(probe: Probe) -> str:
    cost = probe.text
    if _used(cost):
        return f"It uses R's text: with other text there it loses {_with_error(cost)} nats a target."
    return f"It does not measurably use R's text: other text there changes {_with_error(cost)} nats a target."


def _mask_words(probe: Probe) -> str:
    saved = probe.both_ways
    figure = f"{_with_error(saved)} nats a target"
    if not probe.window.recent:
        if _used(saved):
            return f"Trained causal, it gains by an R that it sees both ways: {figure}."
        if saved.clear and saved.mean < 0:
            return f"Trained causal, it loses by an R that it sees both ways: {figure}."
        return f"Trained causal, it makes nothing of an R that it sees both ways: {figure}."
    if _used(saved):
        return f"It uses seeing R both ways: when R is made causal it loses {figure}."
    if saved.clear and saved.mean > 0:
        return f"It uses seeing R both ways very little: when R is made causal it loses {figure}."
    return f"It does not use seeing R both ways: when R is made causal it loses {figure}."


def _used(measured: Measured) -> bool:
    return measured.clear and measured.mean >= USED


def _with_error(measured: Measured) -> str:
    return f"{_signed(measured)} +- {measured.error:.4f}"


def _signed(measured: Measured) -> str:
    return f"{measured.mean:+.4f}"


def _number(value: float) -> str | None:
    return None if math.isnan(value) else f"{value:.4f}"
