"""What each step of a run does and what is due after it, as functions of the step and of samples.

In: a ``RunConfig`` and where the run stands. Out: a ``Timeline``, worked out once and handed on.
"""

from megarc.train.schedule.batch_schedule import BatchSchedule, Interval, Stage, doubling
from megarc.train.schedule.learning_rate import LearningRate, peak
from megarc.train.schedule.lengths import Lengths
from megarc.train.schedule.timeline import Timeline
from megarc.train.schedule.widths import Width, Widths, heaviest, passes, widths_of

__all__ = [
    "BatchSchedule",
    "Interval",
    "LearningRate",
    "Lengths",
    "Stage",
    "Timeline",
    "Width",
    "Widths",
    "doubling",
    "heaviest",
    "passes",
    "peak",
    "widths_of",
]
