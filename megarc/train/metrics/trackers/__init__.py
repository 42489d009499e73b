"""Other programs that draw a run's metrics: each is a client of `metrics.jsonl`, in a file of its own.

In: lines of metrics.jsonl, as they are written. Out: the same numbers in CSV, Weights & Biases, MLflow or trackio.
`shipper.py` reads the lines and hands them over, in a thread: a tracker that is slow or fails never stops a step.
"""

from megarc.train.metrics.trackers.shipper import Trackers
from megarc.train.metrics.trackers.tracker import Tracked, flat

__all__ = ["Tracked", "Trackers", "flat"]
