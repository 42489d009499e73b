"""lm-eval's tasks on our models.

In: a run, names of tasks. Out: lm-eval's results. ``lm_eval_model.py`` is the one file that imports lm_eval;
``python -m megarc.harness`` is lm-eval's own command with the model ``megarc``.
"""

from typing import TYPE_CHECKING

from megarc.lazy_exports import open_when_used

if TYPE_CHECKING:
    from megarc.harness.lm_eval_model import MegarcLM, run_lm_eval

open_when_used(__name__, __file__)

__all__ = ["MegarcLM", "run_lm_eval"]
