"""A run: from a configuration to a trained model in a run folder.

In: a ``RunConfig`` and the ranks' ``Groups``. Out: the run folder (config,
metrics, checkpoints, plots' data). ``pretrain`` is the door; the same call on
the same folder goes on where it stopped.
"""

from megarc.train.checkpoint import Checkpoint, full_masters, held
from megarc.train.checkpoint.trained_model import (
    SavedModel,
    end_of_document,
    find_checkpoint,
    find_tokenizer,
    load_model,
    run_config,
    same_tokenizer,
)
from megarc.train.config.run import RunConfig
from megarc.train.engine.build import build_engine
from megarc.train.engine.deepspeed_settings import bucket
from megarc.train.engine.engine import Engine, StepResult
from megarc.train.folder.folder_lock import hold
from megarc.train.folder.run_folder import RunFolder
from megarc.train.loop.feed import MicroBatch, to_tensors
from megarc.train.loop.lengths import Lengths
from megarc.train.loop.observer import Ending, Moment, Observer
from megarc.train.loop.timeline import Timeline
from megarc.train.resolve import resolve
from megarc.train.run import pretrain
from megarc.train.startup import Start, start

__all__ = [
    "Checkpoint",
    "Ending",
    "Engine",
    "Lengths",
    "MicroBatch",
    "Moment",
    "Observer",
    "RunConfig",
    "RunFolder",
    "SavedModel",
    "Start",
    "StepResult",
    "Timeline",
    "bucket",
    "build_engine",
    "end_of_document",
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
