"""Who holds what: ranks, the groups they form, what they tell each other.

In: the launcher's environment. Out: one ``Groups`` object, handed to whoever
needs to know its rank; nothing here is global. ``TensorParallel`` is what a
split layer holds; ``Box`` says which part of a parameter somebody has.
"""

from megarc.parallel.boxes import Box, cut, overlaps, size, whole
from megarc.parallel.collectives import all_reduce_sum, broadcast_object, gather_objects
from megarc.parallel.groups import Group, Groups, connect, disconnect
from megarc.parallel.place import Place, place_from_environment
from megarc.parallel.tensor import TensorParallel
from megarc.parallel.topology import Dimension, Topology

__all__ = [
    "Box",
    "Dimension",
    "Group",
    "Groups",
    "Place",
    "TensorParallel",
    "Topology",
    "all_reduce_sum",
    "broadcast_object",
    "connect",
    "cut",
    "disconnect",
    "gather_objects",
    "overlaps",
    "place_from_environment",
    "size",
    "whole",
]
