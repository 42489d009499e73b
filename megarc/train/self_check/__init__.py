"""A start that checks its own arithmetic: two steps of a tiny model on the run's ranks, against one rank.

In: a run's configuration and groups. Out: nothing, or a ``UserError`` that names ZeRO stage, precision and parameter.
Releases of DeepSpeed have trained with wrong gradients in silence; docs/faults.md says what this catches.
"""

from megarc.train.self_check.check import self_check

__all__ = ["self_check"]
