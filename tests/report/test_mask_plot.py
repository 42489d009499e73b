"""The picture of a mask shows the mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline
from PIL import Image

from megarc.report import mask_picture
from megarc.report.mask_plot import seen_regions
from megarc.window import Window

WINDOWS = st.tuples(st.integers(0, 6), st.integers(1, 6)).map(lambda rc: Window(*rc, stride=rc[1]))


@settings(max_examples=40, deadline=None)
@given(WINDOWS)
def test_the_regions_cover_exactly_the_allowed_pairs_once(window):
    query, key = np.mgrid[: window.rows, : window.rows]
    centres = np.stack([key.ravel() + 0.5, query.ravel() + 0.5], axis=1)
    covered = sum(
        Outline([*corners, corners[0]], closed=True).contains_points(centres).astype(int)
        for corners, _ in seen_regions(window)
    )
    assert (covered.reshape(query.shape) == window.allow(query, key)).all()


@pytest.mark.parametrize(
    "window", [Window.split(512, 512), Window.masked_head(2000, 200), Window.plain(5), Window(1, 3, 1)]
)
def test_the_picture_has_each_regions_colour_in_proportion(window, tmp_path):
    mask_picture(window, tmp_path / "deep" / "mask.png")
    pixels = np.asarray(Image.open(tmp_path / "deep" / "mask.png").convert("RGB")).reshape(-1, 3)
    for corners, colour in seen_regions(window):
        rgb = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
        x, y = np.array([*corners, corners[0]]).T
        area = abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2 / window.rows**2
        share = (np.abs(pixels - rgb).max(axis=1) < 4).mean()
        # The square of the mask is about half of the picture.
        assert 0.25 * area < share < 0.8 * area
