"""The state of a run on disk: fragments of full tensors, in safetensors and JSON, nothing executed.

In: an engine, where the run stands. Out: ``checkpoints/step-000001000/``, which
any number of data ranks and any ZeRO stage loads again; and, from such a folder,
a resumed run or a trained model. docs/run.md draws the layout.
"""

from megarc.train.checkpoint.course import Course
from megarc.train.checkpoint.fragments import held, make_state, written
from megarc.train.checkpoint.imported import write_imported
from megarc.train.checkpoint.layout import Checkpoint, finished, latest, open_checkpoint
from megarc.train.checkpoint.load import full_masters, load, newest_local
from megarc.train.checkpoint.merging import decay_weights, merged
from megarc.train.checkpoint.observer import Checkpoints, Due
from megarc.train.checkpoint.peers import Peers
from megarc.train.checkpoint.resume import Resumed, go_back, resume
from megarc.train.checkpoint.save import Saver
from megarc.train.checkpoint.start_from import standing_from
from megarc.train.checkpoint.storage_level import Level
from megarc.train.checkpoint.store_copy import StoreCopies, StoreCopy
from megarc.train.checkpoint.store_restore import Restored, restore
from megarc.train.checkpoint.trained_model import (
    SavedModel,
    end_of_document,
    ended_by,
    find_checkpoint,
    find_tokenizer,
    load_model,
    padding_ids,
    run_config,
    same_tokenizer,
    tokenizer_file,
)
from megarc.train.run_position import Standing

__all__ = [
    "Checkpoint",
    "Checkpoints",
    "Course",
    "Due",
    "Level",
    "Peers",
    "Restored",
    "Resumed",
    "SavedModel",
    "Saver",
    "Standing",
    "StoreCopies",
    "StoreCopy",
    "decay_weights",
    "end_of_document",
    "ended_by",
    "find_checkpoint",
    "find_tokenizer",
    "finished",
    "full_masters",
    "go_back",
    "held",
    "latest",
    "load",
    "load_model",
    "make_state",
    "merged",
    "newest_local",
    "open_checkpoint",
    "padding_ids",
    "restore",
    "resume",
    "run_config",
    "same_tokenizer",
    "standing_from",
    "tokenizer_file",
    "write_imported",
    "written",
]
