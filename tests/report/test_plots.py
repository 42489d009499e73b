"""Curves: what is read from a run is what is drawn; nothing to draw is told."""

import itertools
import math

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from megarc.errors import UserError
from megarc.report import gain_by_distance, loss_by_context, loss_curves
from megarc.report.plots import read_curves
from megarc.report.style import PALETTE, spread


def write_metrics(path, losses, heldout_every=10):
    lines = []
    for step, loss in enumerate(losses, start=1):
        counts = {"step": step, "predicted_tokens": 64 * step, "processed_tokens": 128 * step}
        lines.append({**counts, "train/nats_per_token": loss})
        if step % heldout_every == 0:
            lines.append({**counts, "heldout/nats_per_token": loss + 0.1})
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path


def has_colour(png, colour):
    pixels = np.asarray(Image.open(png).convert("RGB")).astype(int).reshape(-1, 3)
    rgb = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return (np.abs(pixels - rgb).max(axis=1) < 4).sum() > 100


def test_curves_are_the_runs_own_numbers(tmp_path):
    metrics = write_metrics(tmp_path / "metrics.jsonl", [3.0, 2.5, 2.0], heldout_every=2)
    with metrics.open("ab") as file:
        file.write(b'{"step": 4, "train/na')  # the run goes on
    assert read_curves(metrics, "step") == ([(1, 3.0), (2, 2.5), (3, 2.0)], [(2, 2.6)])
    assert read_curves(metrics, "processed_tokens")[0][-1] == (384, 2.0)


@pytest.mark.parametrize("points", [1, 2, 200])
def test_each_run_is_drawn_in_its_colour(tmp_path, points):
    runs = {
        f"arm {number}": write_metrics(
            tmp_path / f"{number}.jsonl", np.geomspace(8, 2 + number / 9, points).tolist()
        )
        for number in range(3)
    }
    loss_curves(runs, tmp_path / "curves.png")
    loss_by_context(
        {name: [(2.0, 3.0), (4.0, 2.8 - 0.2 * number)] for number, name in enumerate(runs)},
        tmp_path / "context.png",
    )
    for colour in PALETTE[:3]:
        assert has_colour(tmp_path / "context.png", colour)
        assert points == 1 or has_colour(tmp_path / "curves.png", colour)


def test_nothing_to_draw_is_said(tmp_path):
    empty = write_metrics(tmp_path / "empty.jsonl", [])
    with pytest.raises(UserError, match="arm has logged no loss"):
        loss_curves({"arm": empty}, tmp_path / "x.png")
    with pytest.raises(UserError, match="no metrics at"):
        loss_curves({"arm": tmp_path / "absent.jsonl"}, tmp_path / "x.png")
    with pytest.raises(UserError, match="has no 'tokens'"):
        loss_curves({"arm": write_metrics(tmp_path / "m.jsonl", [1.0])}, tmp_path / "x.png", against="tokens")
    (tmp_path / "broken.jsonl").write_bytes(b"{\n{}\n")
    with pytest.raises(UserError, match="line 1, is not JSON"):
        loss_curves({"arm": tmp_path / "broken.jsonl"}, tmp_path / "x.png")
    with pytest.raises(UserError, match="1 to"):
        loss_by_context({}, tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_labels_keep_their_order_and_do_not_touch(wanted):
    placed = spread(wanted, 0.1, 0.0, 1.0)
    assert max(placed) <= 1 + 1e-9 and min(placed) >= min(0, *wanted) - 1e-9
    heights = sorted(placed)
    assert all(above - below >= 0.1 - 1e-9 for below, above in itertools.pairwise(heights))
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    assert all(placed[a] <= placed[b] for a, b in itertools.pairwise(order))


def test_gains_are_drawn_where_there_are_targets(tmp_path):
    gain_by_distance({"a": [0.1, 0.2, math.nan], "b": [0.0, -0.1, math.nan]}, tmp_path / "gain.png")
    assert (tmp_path / "gain.png").stat().st_size > 5000
    for bad in ({}, {"a": []}, {"a": [math.nan]}):
        with pytest.raises(UserError, match="gains need"):
            gain_by_distance(bad, tmp_path / "none.png")
