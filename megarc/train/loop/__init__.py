"""The training loop and its observers.

In: an engine, a timeline, the micro-batches of each step. Out: trained weights; observers see each step as it is
asked for, and what became of steps once they are settled.
"""

from megarc.train.loop.averaging import Averaging
from megarc.train.loop.feed import steps
from megarc.train.loop.garbage_collection import GarbageCollection
from megarc.train.loop.loop import train
from megarc.train.loop.observer import Done, Ending, Moment, Observer, Vote

__all__ = ["Averaging", "Done", "Ending", "GarbageCollection", "Moment", "Observer", "Vote", "steps", "train"]
