"""Preselection: which windows near the membrane are worth classifying."""

from __future__ import annotations

from t3ssfast.detection.preselect.learn_model import learn_preselection
from t3ssfast.detection.preselect.learn_rule import WindowSample, learn_rule, particle_windows
from t3ssfast.detection.preselect.preselections import (
    CoarseScan,
    Preselection,
    PreselectModel,
    PreselectRule,
    read_preselection,
)
from t3ssfast.detection.preselect.slab_scan import PeakLimit
from t3ssfast.detection.preselect.window_filter import WindowFilter
from t3ssfast.kernels.window_statistics import DEFAULT_STATISTICS

__all__ = [
    "DEFAULT_STATISTICS",
    "CoarseScan",
    "PeakLimit",
    "PreselectModel",
    "PreselectRule",
    "Preselection",
    "WindowFilter",
    "WindowSample",
    "learn_preselection",
    "learn_rule",
    "particle_windows",
    "read_preselection",
]
