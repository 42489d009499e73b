"""Who holds what: ranks, the groups they form, what they tell each other.

In: the launcher's environment. Out: one ``Groups`` object, handed to whoever
needs to know its rank; nothing here is global.
"""

from megarc.parallel.collectives import all_reduce_sum, barrier, broadcast_object, gather_objects
from megarc.parallel.groups import Group, Groups, connect, disconnect
from megarc.parallel.place import Place, place_from_environment

__all__ = [
    "Group",
    "Groups",
    "Place",
    "all_reduce_sum",
    "barrier",
    "broadcast_object",
    "connect",
    "disconnect",
    "gather_objects",
    "place_from_environment",
]
