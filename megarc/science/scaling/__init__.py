"""Scaling fits: the loss as a function of a model's size, its data and its compute.

In: points (parameters, tokens, FLOPs, loss) of trained models. Out: L(N, D) with bootstrap intervals (`surface.py`),
L(C) along the best runs (`frontier.py`), isoFLOP minima (`isoflop.py`), and the best N and D for a budget.
"""

from megarc.science.scaling.frontier import Frontier, fit_frontier
from megarc.science.scaling.isoflop import IsoFlop, groups, isoflops, size_law
from megarc.science.scaling.points import Point, flops_factor, read_points
from megarc.science.scaling.surface import Best, Surface, SurfaceFit, fit_surface, interval

__all__ = [
    "Best",
    "Frontier",
    "IsoFlop",
    "Point",
    "Surface",
    "SurfaceFit",
    "fit_frontier",
    "fit_surface",
    "flops_factor",
    "groups",
    "interval",
    "isoflops",
    "read_points",
    "size_law",
]
