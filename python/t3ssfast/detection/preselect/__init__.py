"""Preselection: which windows near the membrane are worth classifying.

There are three ways, stored as plain values in a classifier's metadata: `PreselectRule`, bounds on the
statistics of a window, learned from picks; `PreselectModel`, a logistic regression over statistics of windows
of several sizes; `CoarseScan`, the classifier itself on a coarse grid of windows.
"""

from __future__ import annotations

from t3ssfast.detection.preselect.learn_model import learn_preselection
from t3ssfast.detection.preselect.learn_rule import DEFAULT_STATISTICS, learn_rule, particle_windows
from t3ssfast.detection.preselect.preselections import (
    CoarseScan,
    Preselection,
    PreselectModel,
    PreselectRule,
    read_preselection,
)
from t3ssfast.detection.preselect.window_filter import WindowFilter

__all__ = [
    "DEFAULT_STATISTICS",
    "CoarseScan",
    "PreselectModel",
    "PreselectRule",
    "Preselection",
    "WindowFilter",
    "learn_preselection",
    "learn_rule",
    "particle_windows",
    "read_preselection",
]
