"""The state of a run on disk: fragments of full tensors, in safetensors and JSON, nothing executed.

In: an engine, where the run stands. Out: ``checkpoints/step-000001000/``, which
any number of data ranks and any ZeRO stage loads again. docs/run.md draws the
layout.
"""

from megarc.train.checkpoint.fragments import held, make_state
from megarc.train.checkpoint.layout import Checkpoint, latest, open_checkpoint
from megarc.train.checkpoint.load import full_masters, load, newest_local
from megarc.train.checkpoint.save import Saver
from megarc.train.checkpoint.storage_level import Level
from megarc.train.run_position import Standing

__all__ = [
    "Checkpoint",
    "Level",
    "Saver",
    "Standing",
    "full_masters",
    "held",
    "latest",
    "load",
    "make_state",
    "newest_local",
    "open_checkpoint",
]
