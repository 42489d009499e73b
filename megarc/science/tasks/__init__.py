"""Theory tasks: sources whose difficulty a theorem states, one file each (docs/theory.md).

In: a window and the options of ``data.train[].options``. Out: a ``Task``, which is a source of samples made on the
fly. Sample k depends on the options and k only, whatever the window's R.
"""

from megarc.science.tasks.copying import Copying
from megarc.science.tasks.k_sum import KSum
from megarc.science.tasks.late_clue import LateClue
from megarc.science.tasks.one_way import OneWayOrder
from megarc.science.tasks.recall import Recall
from megarc.science.tasks.task import Task, maker_of
from megarc.science.tasks.turing import TuringTrace
from megarc.science.tasks.word_problem import WordProblem

KINDS: dict[str, type[Task]] = {
    "copying": Copying,
    "k_sum": KSum,
    "late_clue": LateClue,
    "one_way_order": OneWayOrder,
    "recall": Recall,
    "turing_trace": TuringTrace,
    "word_problem": WordProblem,
}
"""Each task by the ``kind`` under which ``data`` names it."""

MAKERS = {kind: maker_of(kind, task) for kind, task in KINDS.items()}

__all__ = [
    "KINDS",
    "MAKERS",
    "Copying",
    "KSum",
    "LateClue",
    "OneWayOrder",
    "Recall",
    "Task",
    "TuringTrace",
    "WordProblem",
    "maker_of",
]
