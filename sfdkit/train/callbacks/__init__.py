"""Lightning callbacks of the kit, and its checkpoint IO."""

from sfdkit.train.callbacks.checkpoints import AtomicCheckpointIO, RunCheckpoints
from sfdkit.train.callbacks.data_report import DataReport
from sfdkit.train.callbacks.ema import WeightEMA
from sfdkit.train.callbacks.pictures import Pictures
from sfdkit.train.callbacks.predictions import PredictionWriter
from sfdkit.train.callbacks.progress_file import ProgressFile
from sfdkit.train.callbacks.random_state import RandomState
from sfdkit.train.callbacks.statistics import RunSummary, TrainingProgress, TrainingStatistics

__all__ = [
    "AtomicCheckpointIO",
    "DataReport",
    "Pictures",
    "PredictionWriter",
    "ProgressFile",
    "RandomState",
    "RunCheckpoints",
    "RunSummary",
    "TrainingProgress",
    "TrainingStatistics",
    "WeightEMA",
]
