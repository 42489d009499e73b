"""Questions put to a model: tasks whose answer a mask decides.

In: a window, a seed. Out: sources (``megarc.data.Source``) of samples made on the fly.
"""

from megarc.science.pointer_chase import PointerChase

__all__ = ["PointerChase"]
