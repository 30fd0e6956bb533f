"""Lightning callbacks of the kit, and its way of writing checkpoints."""

from sfdkit.callbacks.averaging import WeightAverage
from sfdkit.callbacks.checkpoint_files import AtomicCheckpoints
from sfdkit.callbacks.data_report import DataReport
from sfdkit.callbacks.last_checkpoint import LastCheckpoint
from sfdkit.callbacks.pictures import Pictures
from sfdkit.callbacks.predictions import PredictionWriter
from sfdkit.callbacks.progress_file import ProgressFile
from sfdkit.callbacks.random_state import RandomState
from sfdkit.callbacks.run_checkpoints import RunCheckpoints
from sfdkit.callbacks.run_summary import RunSummary
from sfdkit.callbacks.statistics import TrainingProgress, TrainingStatistics

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
    "WeightAverage",
]
