"""Numbers about a run: lines of metrics, held-out loss, gradient noise scale, the device's limits.

In: settled steps, through the observers' hooks; gradients, for the noise scale. Out: ``metrics.jsonl``, tensorboard,
a progress bar, the log.
"""

from megarc.train.metrics.device_limits import no_memory, peak_flops, peak_memory
from megarc.train.metrics.expert_loads import ExpertLoads
from megarc.train.metrics.heldout_loss import heldout_losses, together_of
from megarc.train.metrics.metrics import Metrics
from megarc.train.metrics.noise_scale import NoiseScale
from megarc.train.metrics.prediction import Prediction
from megarc.train.metrics.profile import Profile, Profiled
from megarc.train.metrics.source_counts import SourceCounts
from megarc.train.metrics.trackers import Tracked, Trackers, flat

__all__ = [
    "ExpertLoads",
    "Metrics",
    "NoiseScale",
    "Prediction",
    "Profile",
    "Profiled",
    "SourceCounts",
    "Tracked",
    "Trackers",
    "flat",
    "heldout_losses",
    "no_memory",
    "peak_flops",
    "peak_memory",
    "together_of",
]
