"""Which windows near the membrane deserve the classifier.

Three ways, each kept in a classifier's metadata as plain values: `PreselectRule`, bounds on the statistics of
a window, robust and learned from the picks alone; `PreselectModel`, a regularised logistic regression over
the statistics of windows of several sizes; `CoarseScan`, the classifier itself on a coarse grid of windows.
"""

from __future__ import annotations

from t3ssfast.detection.preselect.blocks import BlockStatistics
from t3ssfast.detection.preselect.coarse_scan import CoarseScan
from t3ssfast.detection.preselect.model import PreselectModel, learn_model
from t3ssfast.detection.preselect.preselect import block_windows, learn_preselection, particle_windows
from t3ssfast.detection.preselect.rule import (
    DEFAULT_STATISTICS,
    PreselectRule,
    apply_rule,
    learn_rule,
    rule_keeps,
)
from t3ssfast.detection.preselect.window_filter import Preselection, WindowFilter, read_preselection

__all__ = [
    "DEFAULT_STATISTICS",
    "BlockStatistics",
    "CoarseScan",
    "PreselectModel",
    "PreselectRule",
    "Preselection",
    "WindowFilter",
    "apply_rule",
    "block_windows",
    "learn_model",
    "learn_preselection",
    "learn_rule",
    "particle_windows",
    "read_preselection",
    "rule_keeps",
]
