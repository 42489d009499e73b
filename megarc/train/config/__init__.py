"""The keys of a run: `run.py` puts the tree together, and a file holds the keys of each part.

In: YAML, overrides (through ``megarc.config``). Out: a frozen ``RunConfig``, in itself consistent
(`combinations.py`). It holds what was asked for; ``resolve`` fills in what the data and the ranks decide,
``schedule`` what lengths come to in steps.
"""

from megarc.train.config.average import AverageConfig
from megarc.train.config.batch import BatchConfig, MeasuredConfig, StageConfig
from megarc.train.config.checkpoint import CheckpointConfig
from megarc.train.config.health import HealthConfig
from megarc.train.config.logging import LoggingConfig
from megarc.train.config.optimizer import MuonConfig, OptimizerConfig
from megarc.train.config.parallel import ParallelConfig
from megarc.train.config.profile import ProfileConfig
from megarc.train.config.run import RunConfig
from megarc.train.config.schedule import ScheduleConfig
from megarc.train.config.start import StartConfig
from megarc.train.config.validation import ValidationConfig

__all__ = [
    "AverageConfig",
    "BatchConfig",
    "CheckpointConfig",
    "HealthConfig",
    "LoggingConfig",
    "MeasuredConfig",
    "MuonConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "ProfileConfig",
    "RunConfig",
    "ScheduleConfig",
    "StageConfig",
    "StartConfig",
    "ValidationConfig",
]
