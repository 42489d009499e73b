"""Questions put to a model: tasks whose answer a mask decides, and studies of many small models.

In: a window, a seed. Out: sources (``megarc.data.Source``) of samples made on the fly;
``MAKERS`` names them for a run's ``data`` keys.
"""

from megarc.science.distant_recall import DistantRecall, make_distant_recall
from megarc.science.iterated import IteratedFunction, make_iterated_function
from megarc.science.pointer_chase import PointerChase, accuracy, make_pointer_chase
from megarc.science.tasks import MAKERS as _TASKS

MAKERS = {
    "distant_recall": make_distant_recall,
    "iterated_function": make_iterated_function,
    "pointer_chase": make_pointer_chase,
    **_TASKS,
}

__all__ = [
    "MAKERS",
    "DistantRecall",
    "IteratedFunction",
    "PointerChase",
    "accuracy",
    "make_distant_recall",
    "make_iterated_function",
    "make_pointer_chase",
]
