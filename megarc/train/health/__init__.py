"""The watch on a run's health: signals, bad numbers, hangs, damaged memory, slow ranks.

In: the steps, through the hooks of ``loop.Observer``. Out: judgements of updates, votes and endings when steps are
settled, reports in the run folder.
"""

from megarc.train.health.bad_steps import BadSteps, Diverged, Numbers, Running, Statistics
from megarc.train.health.replay_check import Replay
from megarc.train.health.replica_check import Replicas
from megarc.train.health.signals import Signals
from megarc.train.health.stragglers import Stragglers
from megarc.train.health.watchdog import alarmed, clear, watched

__all__ = [
    "BadSteps",
    "Diverged",
    "Numbers",
    "Replay",
    "Replicas",
    "Running",
    "Signals",
    "Statistics",
    "Stragglers",
    "alarmed",
    "clear",
    "watched",
]
