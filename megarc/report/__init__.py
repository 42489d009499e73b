"""Numbers and runs to pictures and tables for people.

In: a run's ``metrics.jsonl``, scores, a window. Out: PNG files, and tables as
plain text or markdown. matplotlib is imported when a picture is drawn.
"""

from typing import TYPE_CHECKING

from megarc.lazy_exports import open_when_used

if TYPE_CHECKING:
    from megarc.report.batch_plots import StepsPicture, branches, micro_batches, steps_to_loss
    from megarc.report.coordinate_plot import coordinate_picture
    from megarc.report.expert_plot import expert_loads
    from megarc.report.ladder_plot import ladder
    from megarc.report.mask_plot import mask_picture
    from megarc.report.planning import layouts, time_to_train
    from megarc.report.plots import gain_by_distance, loss_by_context, loss_curves
    from megarc.report.probe_report import probe_facts, probe_tables, probe_words
    from megarc.report.scaling_plot import ScalingPicture, scaling
    from megarc.report.study_plots import measure_by
    from megarc.report.tables import Align, table

open_when_used(__name__, __file__)

__all__ = [
    "Align",
    "ScalingPicture",
    "StepsPicture",
    "branches",
    "coordinate_picture",
    "expert_loads",
    "gain_by_distance",
    "ladder",
    "layouts",
    "loss_by_context",
    "loss_curves",
    "mask_picture",
    "measure_by",
    "micro_batches",
    "probe_facts",
    "probe_tables",
    "probe_words",
    "scaling",
    "steps_to_loss",
    "table",
    "time_to_train",
]
