"""The report of runs: one page with every curve of a run, and the runs against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from megarc.config import differences, to_dict
from megarc.errors import UserError
from megarc.model import cost_of
from megarc.progress import human
from megarc.report.run_page.chart import Curve, line_chart, smoothed
from megarc.report.run_page.heldout_detail import HeldOutDetail
from megarc.report.run_page.history import RunHistory
from megarc.report.run_page.html import Page
from megarc.report.style import PALETTE

_COUNTERS = (
    ("predicted_tokens", "predicted tokens"),
    ("processed_tokens", "processed tokens"),
    ("step", "steps"),
    ("flops", "FLOPs (exact mask)"),
    ("hours", "hours since the first line"),
)
Details = Mapping[str, HeldOutDetail | str]
"""By the run's name, or why there is none."""


def run_page(
    runs: Sequence[RunHistory], details: Details, texts: Mapping[str, Mapping[int, str]] | None = None
) -> str:
    """The HTML page.

    Args:
        texts: by run and skipped step, how the step's first sample begins.

    Raises:
        UserError: where there are more runs than colours, or runs of different tokenizers without bits/byte.
    """
    if not 1 <= len(runs) <= len(PALETTE):
        raise UserError(f"{len(runs)} runs in one report; give 1 to {len(PALETTE)}")
    unit, words = common_unit(runs)
    colours = {run.name: colour for run, colour in zip(runs, PALETTE, strict=False)}
    page = Page(
        f"Report of {len(runs)} runs" if len(runs) > 1 else f"Report of {runs[0].name}", list(colours.items())
    )
    if words:
        page.warn(words)
    _overview(page, runs)
    _losses(page, runs, colours, unit)
    _details(page, details, colours, unit)
    _training(page, runs, colours)
    _events(page, runs, texts or {})
    _configurations(page, runs)
    _samples(page, details)
    _environments(page, runs)
    return page.html()


def common_unit(runs: Sequence[RunHistory]) -> tuple[str, str]:
    """The unit in which all losses are comparable, and what to say about it (nothing, for one tokenizer).

    Raises:
        UserError: where the tokenizers differ, and a run does not know the bytes of its text.
    """
    tokenizers = {run.tokenizer for run in runs}
    if len(tokenizers) == 1:
        return "nats_per_token", ""
    unknown = [run.name for run in runs if run.newest("train/bits_per_byte") is None]
    if unknown:
        raise UserError(
            f"the runs have different tokenizers, so only bits/byte can be compared, and {', '.join(unknown)} "
            "has none (its corpus does not know the bytes of its text); leave it out"
        )
    return "bits_per_byte", (
        "These runs have different tokenizers. A loss per token cannot be compared between them, so this page shows "
        "bits/byte only."
    )


def _overview(page: Page, runs: Sequence[RunHistory]) -> None:
    page.section("The runs")
    columns = [
        "run", "state", "step", "window", "parameters", "predicted", "processed", "FLOPs", "train bits/byte",
        "held-out nats/token", "held-out bits/byte",
    ]  # fmt: skip
    one_tokenizer = len({run.tokenizer for run in runs}) == 1
    rows = []
    for run in runs:
        window = run.config.window.build()
        heldout = run.final("heldout/nats_per_token")
        rows.append([
            run.name, _state(run), run.last["step"], window, human(cost_of(run.config.model, window).parameters),
            human(run.last["predicted_tokens"]), human(run.last["processed_tokens"]),
            human(run.flops(run.last["samples"])), _number(run.final("train/bits_per_byte")),
            _number(heldout) if one_tokenizer else "other tokenizer", _number(run.final("heldout/bits_per_byte")),
        ])  # fmt: skip
    page.table(columns, rows)


def _state(run: RunHistory) -> str:
    try:
        return run.folder.fate()
    except UserError as error:
        return str(error)


def _losses(page: Page, runs: Sequence[RunHistory], colours: Mapping[str, str], unit: str) -> None:
    page.section("Loss", "Lines: training loss, smoothed over a twentieth of the run. Dots: held-out loss.")
    charts = []
    for counter, words in _COUNTERS:
        curves = []
        for run in runs:
            train, heldout = (run.curve(f"{part}/{unit}", counter) for part in ("train", "heldout"))
            train = train[len(train) // 50 :]  # the first fall from log(vocabulary) would flatten the rest
            curves.append(Curve(run.name, train, colours[run.name], faint=True))
            curves.append(Curve(run.name, smoothed(train), colours[run.name]))
            curves.append(Curve(f"{run.name}, held-out", heldout, colours[run.name], dots=True))
        charts.append((f"by {words}", line_chart(curves, words, _unit_words(unit))))
    if unit == "nats_per_token":  # what is right a token cannot be compared across tokenizers either
        right = [Curve(run.name, run.curve("heldout/accuracy", "step"), colours[run.name]) for run in runs]
        charts.append(
            ("held-out accuracy", line_chart(right, "steps", "share of likeliest tokens that are right"))
        )
    page.charts(charts)


def _details(page: Page, details: Details, colours: Mapping[str, str], unit: str) -> None:
    page.section("Held-out loss by place and by frequency")
    found = {name: one for name, one in details.items() if isinstance(one, HeldOutDetail)}
    for name, one in details.items():
        if isinstance(one, str):
            page.note(f"{name}: {one}")
    if unit != "nats_per_token":
        page.note("Places and frequencies are of tokens, which these runs do not share: not shown.")
        return
    if not found:
        return
    for name, one in found.items():
        page.note(
            f"{name}: {one.targets} targets of {one.corpus}, the run's own window and newest checkpoint"
        )
    by_row = [Curve(name, one.by_row, colours[name], faint=True) for name, one in found.items()]
    by_row += [Curve(name, smoothed(one.by_row, 0.1), colours[name]) for name, one in found.items()]
    by_frequency = [Curve(name, one.by_frequency, colours[name]) for name, one in found.items()]
    page.charts([
        ("by position in the window", line_chart(by_row, "rows of the window before the target", "nats / token")),
        ("by token frequency", line_chart(by_frequency, "share of the training tokens", "nats / token", log_x=True)),
    ])  # fmt: skip


def _training(page: Page, runs: Sequence[RunHistory], colours: Mapping[str, str]) -> None:
    page.section("Training", "By steps. A dashed line is a restart.")
    marks = [
        (float(step), f"{run.name}: went on from step {step}") for run in runs for _, step in run.restarts
    ]

    skipped = any(run.newest("train/skipped") for run in runs)

    def chart(up: str, *metrics: str, log_y: bool = False, scale: float = 1.0) -> str:
        curves = [
            Curve(f"{run.name}: {metric}", [(x, y * scale) for x, y in run.curve(metric)], colours[run.name],
                  dots=place > 0)
            for run in runs
            for place, metric in enumerate(metrics)
        ]  # fmt: skip
        return line_chart(curves, "steps", up, log_y=log_y, marks=marks)

    page.charts([
        ("learning rate", chart("learning rate", "train/learning_rate")),
        ("gradient norm, before clipping", chart("norm", "train/gradient_norm", log_y=True)),
        ("throughput", chart("processed tokens / s", "speed/processed_tokens_per_second")),
        ("MFU, exact mask", chart("% of peak", "speed/mfu_exact_mask", scale=100)),
        ("memory", chart("peak GiB", "memory/peak_gib")),
        ("batch (line) and gradient noise scale (dots)",
         chart("samples", "batch/samples", "batch/noise_scale", log_y=True)),
        ("steps skipped until then", chart("steps", "train/skipped") if skipped else ""),
    ])  # fmt: skip
    if not any(run.curve("batch/noise_scale") for run in runs):
        page.note("The noise scale is unknown: it needs more than one micro-batch or data rank a step.")


def _events(page: Page, runs: Sequence[RunHistory], texts: Mapping[str, Mapping[int, str]]) -> None:
    page.section("Skipped steps and restarts")
    rows = [
        [run.name, when, step, words, texts.get(run.name, {}).get(step)]
        for run in runs
        for when, step, words in run.skipped
    ]
    if rows:
        page.table(["run", "time", "skipped step", "why, and its samples", "what it held"], rows)
    else:
        page.note("No step was skipped.")
    went_on = [[run.name, when, f"went on from step {step}"] for run in runs for when, step in run.restarts]
    went_on += [[run.name, when, words] for run in runs for when, words in run.returns]
    if went_on:
        page.table(["run", "time", "what happened"], went_on)
    else:
        page.note("No run was restarted.")


def _configurations(page: Page, runs: Sequence[RunHistory]) -> None:
    page.section("Configuration differences")
    if len(runs) == 1:
        page.note(f"One run; its configuration is {runs[0].folder.config}.")
        return
    rows = configuration_rows(runs)
    if rows:
        page.table(["key", *(run.name for run in runs)], rows)
    else:
        page.note("The configurations are equal.")


def configuration_rows(runs: Sequence[RunHistory]) -> list[list[Any]]:
    """Each key in which not all runs agree, and its value in each run."""
    trees = [to_dict(run.config) for run in runs]
    values: dict[str, dict[int, Any]] = {}
    for place, tree in enumerate(trees[1:], start=1):
        for name, old, new in differences(trees[0], tree):
            values.setdefault(name, {0: old})[place] = new
    values.pop("folder", None)
    return [
        [name, *(found.get(place, found[0]) for place in range(len(runs)))] for name, found in values.items()
    ]


def _samples(page: Page, details: Details) -> None:
    page.section("Samples", "What each run's newest checkpoint writes at temperature 1 behind held-out text.")
    written = {
        name: one for name, one in details.items() if isinstance(one, HeldOutDetail) and one.continuation
    }
    for name, one in written.items():
        page.text(name, f"{one.prompt}▮{one.continuation}")
    if not written:
        page.note("None: no checkpoint, no held-out corpus or no tokenizer is at hand, or --sample 0.")


def _environments(page: Page, runs: Sequence[RunHistory]) -> None:
    page.section("Environment")
    flat = [dict(_leaves(run.environment)) for run in runs]
    keys = list(dict.fromkeys(name for one in flat for name in one))
    page.table(["", *(run.name for run in runs)], [[name, *(one.get(name) for one in flat)] for name in keys])


def _leaves(tree: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in tree.items():
        path = f"{before}{name}"
        found += _leaves(value, f"{path}.") if isinstance(value, dict) else [(path, value)]
    return found


def _unit_words(unit: str) -> str:
    return {"nats_per_token": "nats / token", "bits_per_byte": "bits / byte"}[unit]


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"
