"""A mixture of experts: each row is sent to a few of many feed-forwards (docs/experts.md).

In: rows of the residual stream. Out: what is added to it. ``router.py`` chooses, ``dispatch.py`` brings the rows of one
expert together, ``grouped_matmul.py`` multiplies each expert's rows by its own matrix.
"""

from megarc.model.feed_forward.experts.experts import Experts
from megarc.model.feed_forward.experts.router import Router, Tally, start_tallies

__all__ = ["Experts", "Router", "Tally", "start_tallies"]
