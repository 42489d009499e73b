"""A run: from a configuration to a trained model in a run folder.

In: a ``RunConfig`` and the ranks' ``Groups``. Out: the run folder (config,
metrics, checkpoints, plots' data). ``pretrain`` is the door; the same call on
the same folder goes on where it stopped.
"""

from megarc.train.config import RunConfig
from megarc.train.folder import RunFolder
from megarc.train.resolve import resolve
from megarc.train.run import pretrain
from megarc.train.saved import SavedModel, load_model

__all__ = ["RunConfig", "RunFolder", "SavedModel", "load_model", "pretrain", "resolve"]
