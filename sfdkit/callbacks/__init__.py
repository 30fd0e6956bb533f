"""Lightning callbacks of the kit, and its way of writing checkpoints."""

from sfdkit.callbacks.averaging import WeightAverage
from sfdkit.callbacks.checkpoint_files import AtomicCheckpoints
from sfdkit.callbacks.data_report import DataReport
from sfdkit.callbacks.pictures import Pictures
from sfdkit.callbacks.predictions import PredictionWriter
from sfdkit.callbacks.random_state import RandomState
from sfdkit.callbacks.statistics import TrainingProgress, TrainingStatistics

__all__ = [
    "AtomicCheckpoints",
    "DataReport",
    "Pictures",
    "PredictionWriter",
    "RandomState",
    "TrainingProgress",
    "TrainingStatistics",
    "WeightAverage",
]
