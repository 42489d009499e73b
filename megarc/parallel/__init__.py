"""Who holds what: ranks, the groups they form, what they tell each other.

In: a place (the launcher's environment). Ranks meet, answer a roll call and
connect. Out: one ``Groups`` object, handed to whoever
needs to know its rank; nothing here is global. ``TensorParallel`` is what a
split layer holds; ``Box`` says which part of a parameter somebody has.
"""

from megarc.parallel.collectives import (
    agree,
    all_reduce_max,
    all_reduce_sum,
    broadcast_object,
    first_to_last,
    gather_objects,
    together,
)
from megarc.parallel.context import RankRows
from megarc.parallel.exchange import EvenExchange, Exchange
from megarc.parallel.groups import ExpertRanks, Group, Groups, connect, disconnect, expert_ranks
from megarc.parallel.hostfile import Host, ask_hosts, read_hostfile
from megarc.parallel.link_check import Link, check_links
from megarc.parallel.rank_check import Present, roll_call
from megarc.parallel.rendezvous import Meeting, describe_hosts, describe_ranks, meet
from megarc.parallel.shard_boxes import Box, Overlap, cut, overlaps, size, whole
from megarc.parallel.side_channel import Channel, SideChannel, swap_words
from megarc.parallel.tensor import TensorParallel
from megarc.parallel.topology import Dimension, Topology

__all__ = [
    "Box",
    "Channel",
    "Dimension",
    "EvenExchange",
    "Exchange",
    "ExpertRanks",
    "Group",
    "Groups",
    "Host",
    "Link",
    "Meeting",
    "Overlap",
    "Present",
    "RankRows",
    "SideChannel",
    "TensorParallel",
    "Topology",
    "agree",
    "all_reduce_max",
    "all_reduce_sum",
    "ask_hosts",
    "broadcast_object",
    "check_links",
    "connect",
    "cut",
    "describe_hosts",
    "describe_ranks",
    "disconnect",
    "expert_ranks",
    "first_to_last",
    "gather_objects",
    "meet",
    "overlaps",
    "read_hostfile",
    "roll_call",
    "size",
    "swap_words",
    "together",
    "whole",
]
