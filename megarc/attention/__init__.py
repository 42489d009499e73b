"""[R | C] attention: one door, several engines, every one exact.

In: queries ``[batch, heads, rows, head_dim]``, keys and values with as many or fewer
heads, and what rows see: a window's ``recent``, or an interval of keys each. Out: what each row
read, shaped as the queries. Causal attention is the case ``recent = 0``.

A run asks ``resolve`` once, which logs the engine and why; its blocks call
``attend``. Generation keeps keys and values in a ``Cache`` and calls
``attend_cached``.
"""

from megarc.attention.by_head import LayerHeads, attend_by_head
from megarc.attention.cache import Cache, Cached, attend_cached
from megarc.attention.dispatch import ENGINES, attend, resolve
from megarc.attention.mask import narrowed, of_rows, on_device
from megarc.attention.slots import Branches, CacheShape, LayerCache, Slots

__all__ = [
    "ENGINES",
    "Branches",
    "Cache",
    "CacheShape",
    "Cached",
    "LayerCache",
    "LayerHeads",
    "Slots",
    "attend",
    "attend_by_head",
    "attend_cached",
    "narrowed",
    "of_rows",
    "on_device",
    "resolve",
]
