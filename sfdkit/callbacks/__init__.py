"""Lightning callbacks: averaging, statistics, pictures, predictions, random state."""

from sfdkit.callbacks.averaging import WeightAverage
from sfdkit.callbacks.pictures import Pictures
from sfdkit.callbacks.predictions import PredictionWriter
from sfdkit.callbacks.random_state import RandomState
from sfdkit.callbacks.statistics import TrainingProgress, TrainingStatistics

__all__ = ["Pictures", "PredictionWriter", "RandomState", "TrainingProgress", "TrainingStatistics", "WeightAverage"]
