"""How busy each expert is along a run."""

from __future__ import annotations

from pathlib import Path

import orjson

from megarc.errors import UserError
from megarc.report.style import new_figure, plain_axes, save

_MOST_LAYERS, _MOST_LINES = 8, 400


def expert_loads(lines: Path, path: Path) -> None:
    """A picture for each layer (eight of them at most): experts against steps, darker where an expert has more rows.

    Args:
        lines: a run's ``experts.jsonl``.

    Raises:
        UserError: where there is nothing to draw.
    """
    found = _read(lines)
    if not found:
        raise UserError(f"{lines} has no rows of experts; the run logs them with its metrics")
    layers = list(found[-1][1])
    shown = layers[:: -(-len(layers) // _MOST_LAYERS)]
    figure = new_figure(8, 1 + 1.3 * len(shown))
    grid = figure.subplots(len(shown), 1, squeeze=False, sharex=True)[:, 0]
    for axes, layer in zip(grid, shown, strict=True):
        loads = [[count * len(rows[layer]) / sum(rows[layer]) for count in rows[layer]] for _, rows in found]
        by_expert = list(zip(*loads, strict=True))
        edges = (found[0][0], found[-1][0] + 1, -0.5, len(by_expert) - 0.5)
        image = axes.imshow(
            by_expert, aspect="auto", origin="lower", extent=edges, vmin=0, vmax=2, cmap="Greys",
            interpolation="nearest",
        )  # fmt: skip
        figure.colorbar(image, ax=axes)
        last = layer == shown[-1]
        plain_axes(axes, f"layer {layer}: rows of an expert / mean", "step" if last else "", "expert")
        axes.grid(visible=False)  # it would cross the image
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.yaxis.get_major_locator().set_params(integer=True)
    save(figure, path)


def _read(lines: Path) -> list[tuple[int, dict[str, list[int]]]]:
    """Step and rows of each line, of at most so many lines; a line that was cut is left out."""
    found = []
    for line in lines.read_bytes().splitlines():
        try:
            facts = orjson.loads(line)
            found.append((int(facts["step"]), facts["rows"]))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            continue
    return found[:: -(-len(found) // _MOST_LINES) or 1]
