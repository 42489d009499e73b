"""A run: from a configuration to a trained model in a run folder.

In: a ``RunConfig`` and the ranks' ``Groups``. Out: the run folder (config,
metrics, checkpoints, plots' data). ``pretrain`` is the door; the same call on
the same folder goes on where it stopped.
"""

from typing import TYPE_CHECKING

from megarc.lazy_exports import open_when_used

if TYPE_CHECKING:
    from megarc.train.checkpoint import (
        Checkpoint,
        SavedModel,
        Standing,
        decay_weights,
        end_of_document,
        ended_by,
        find_checkpoint,
        find_tokenizer,
        finished,
        full_masters,
        held,
        load_model,
        merged,
        padding_ids,
        run_config,
        same_tokenizer,
        standing_from,
        tokenizer_file,
        write_imported,
    )
    from megarc.train.config import RunConfig
    from megarc.train.config.combinations import check_context, check_experts
    from megarc.train.determinism import verify_determinism
    from megarc.train.early_config_check import first_look
    from megarc.train.engine import (
        Engine,
        MicroBatch,
        RowSharing,
        StepResult,
        bucket,
        build_engine,
        dtype_of,
        to_tensors,
    )
    from megarc.train.engine.muon import Place, Sharing, matrices_of
    from megarc.train.folder import RunFolder, hold
    from megarc.train.health import Diverged
    from megarc.train.loop import Ending, Moment, Observer
    from megarc.train.resolve_config import resolve
    from megarc.train.run import open_heldout, open_train, pretrain
    from megarc.train.schedule import Lengths, Timeline, passes, peak
    from megarc.train.startup import Start, start

open_when_used(__name__, __file__)

__all__ = [
    "Checkpoint",
    "Diverged",
    "Ending",
    "Engine",
    "Lengths",
    "MicroBatch",
    "Moment",
    "Observer",
    "Place",
    "RowSharing",
    "RunConfig",
    "RunFolder",
    "SavedModel",
    "Sharing",
    "Standing",
    "Start",
    "StepResult",
    "Timeline",
    "bucket",
    "build_engine",
    "check_context",
    "check_experts",
    "decay_weights",
    "dtype_of",
    "end_of_document",
    "ended_by",
    "find_checkpoint",
    "find_tokenizer",
    "finished",
    "first_look",
    "full_masters",
    "held",
    "hold",
    "load_model",
    "matrices_of",
    "merged",
    "open_heldout",
    "open_train",
    "padding_ids",
    "passes",
    "peak",
    "pretrain",
    "resolve",
    "run_config",
    "same_tokenizer",
    "standing_from",
    "start",
    "to_tensors",
    "tokenizer_file",
    "verify_determinism",
    "write_imported",
]
