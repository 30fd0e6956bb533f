"""Lightning callbacks of the kit, and its way of writing checkpoints."""

from sfdkit.train.callbacks.checkpoint_files import AtomicCheckpoints
from sfdkit.train.callbacks.data_report import DataReport
from sfdkit.train.callbacks.ema import WeightEMA
from sfdkit.train.callbacks.last_checkpoint import LastCheckpoint
from sfdkit.train.callbacks.pictures import Pictures
from sfdkit.train.callbacks.predictions import PredictionWriter
from sfdkit.train.callbacks.progress_file import ProgressFile
from sfdkit.train.callbacks.random_state import RandomState
from sfdkit.train.callbacks.run_checkpoints import RunCheckpoints
from sfdkit.train.callbacks.run_summary import RunSummary
from sfdkit.train.callbacks.statistics import TrainingProgress, TrainingStatistics

__all__ = [
    "AtomicCheckpoints",
    "DataReport",
    "LastCheckpoint",
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
