"""One optimizer step, on DeepSpeed.

In: a run's configuration and the ranks' groups. Out: an ``Engine`` whose ``step`` takes micro-batches and returns
loss, gradient norm and learning rate. DeepSpeed's settings, optimizer and pipeline are known in this room only.
"""

from typing import TYPE_CHECKING

from megarc.lazy_exports import open_when_used

if TYPE_CHECKING:
    from megarc.train.engine.build import build_engine
    from megarc.train.engine.deepspeed_settings import bucket
    from megarc.train.engine.engine import Engine, GradientWatcher, StepResult, Work, unwanted
    from megarc.train.engine.expert_balance import Load
    from megarc.train.engine.gradient_norm import norm_of
    from megarc.train.engine.micro_batch import MicroBatch, to_tensors
    from megarc.train.engine.row_sharing import RowSharing, Shares
    from megarc.train.engine.torch_dtype import dtype_of

open_when_used(__name__, __file__)

__all__ = [
    "Engine",
    "GradientWatcher",
    "Load",
    "MicroBatch",
    "RowSharing",
    "Shares",
    "StepResult",
    "Work",
    "bucket",
    "build_engine",
    "dtype_of",
    "norm_of",
    "to_tensors",
    "unwanted",
]
