"""Which windows near the membrane deserve the classifier.

Three ways, each kept in a classifier's metadata as plain values: `PreselectRule`, bounds on the statistics of
a window, robust and learned from the picks alone; `PreselectModel`, a regularised logistic regression over
the statistics of windows of several sizes; `CoarseLook`, the classifier itself on a coarse grid of windows.
"""

from __future__ import annotations

from t3ssfast.preselect.blocks import BlockStatistics
from t3ssfast.preselect.gate import Gate, Preselection, read_preselection
from t3ssfast.preselect.look import CoarseLook
from t3ssfast.preselect.model import PreselectModel, learn_model
from t3ssfast.preselect.rule import DEFAULT_STATISTICS, PreselectRule, apply_rule, learn_rule, rule_keeps
from t3ssfast.preselect.run import block_windows, learn_preselection, particle_windows, preselect

__all__ = [
    "DEFAULT_STATISTICS",
    "BlockStatistics",
    "CoarseLook",
    "Gate",
    "PreselectModel",
    "PreselectRule",
    "Preselection",
    "apply_rule",
    "block_windows",
    "learn_model",
    "learn_preselection",
    "learn_rule",
    "particle_windows",
    "preselect",
    "read_preselection",
    "rule_keeps",
]
