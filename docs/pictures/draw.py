"""Draws the pictures of docs/: python docs/pictures/draw.py"""

from pathlib import Path

from megarc.report import mask_picture
from megarc.window import Window

HERE = Path(__file__).parent

mask_picture(Window.split(12, 12), HERE / "split.png")
mask_picture(Window.masked_head(20, 2), HERE / "masked_head.png")
