"""Calibration: streaming, mergeable observers, the table that keeps them, TensorRT's cache, calibration runs."""

from lowbit.calibration.histogram import Histogram
from lowbit.calibration.observers import (
    METHODS,
    EntropyObserver,
    FixedObserver,
    MinMaxObserver,
    MSEObserver,
    Observer,
    PercentileObserver,
    make_observer,
)
from lowbit.calibration.run import calibrate
from lowbit.calibration.table import CalibrationTable
from lowbit.calibration.threshold import EntropySearch, entropy_distributions, entropy_search

__all__ = [
    "METHODS",
    "CalibrationTable",
    "EntropyObserver",
    "EntropySearch",
    "FixedObserver",
    "Histogram",
    "MSEObserver",
    "MinMaxObserver",
    "Observer",
    "PercentileObserver",
    "calibrate",
    "entropy_distributions",
    "entropy_search",
    "make_observer",
]
