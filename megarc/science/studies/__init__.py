"""A study: arms x sizes x seeds of one run, each a normal run, then means, errors, p-values and a verdict in words.

In: a ``GridConfig``. Out: a ``Job`` for each run; of those that are finished, an ``Outcome``.
"""

from megarc.science.studies.config import GridConfig, SizeConfig, VariantConfig
from megarc.science.studies.grid import Cell, grid
from megarc.science.studies.outcome import Comparison, Outcome, Row, read_outcome

__all__ = [
    "Cell",
    "Comparison",
    "GridConfig",
    "Outcome",
    "Row",
    "SizeConfig",
    "VariantConfig",
    "grid",
    "read_outcome",
]
