"""A run: from a configuration to a trained model in a run folder.

In: a ``RunConfig`` and the ranks' ``Groups``. Out: the run folder (config,
metrics, checkpoints, plots' data). ``pretrain`` is the door; the same call on
the same folder goes on where it stopped.
"""

from megarc.train.build import build_engine
from megarc.train.checkpoint import Checkpoint, full_masters, held
from megarc.train.config import RunConfig
from megarc.train.engine import Engine, StepResult
from megarc.train.feed import MicroBatch, to_tensors
from megarc.train.folder import RunFolder
from megarc.train.lock import hold
from megarc.train.observers import Ending, Moment, Observer
from megarc.train.resolve import resolve
from megarc.train.run import pretrain
from megarc.train.saved import (
    SavedModel,
    find_checkpoint,
    find_tokenizer,
    load_model,
    run_config,
    same_tokenizer,
)
from megarc.train.settings import bucket
from megarc.train.start import Start, start

__all__ = [
    "Checkpoint",
    "Ending",
    "Engine",
    "MicroBatch",
    "Moment",
    "Observer",
    "RunConfig",
    "RunFolder",
    "SavedModel",
    "Start",
    "StepResult",
    "bucket",
    "build_engine",
    "find_checkpoint",
    "find_tokenizer",
    "full_masters",
    "held",
    "hold",
    "load_model",
    "pretrain",
    "resolve",
    "run_config",
    "same_tokenizer",
    "start",
    "to_tensors",
]
