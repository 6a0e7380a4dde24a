"""Reads a LeNet-like classifier into a plan that answers on every window without repeating work.

A plan is a chain of layers over feature maps at stride 1, exact for convolutions without padding and pooling
in floor mode: a layer behind a pooling of stride s takes its taps s times as far apart ("a trous"). The
feature maps are shared by all windows; the fully connected layers are done only where they are asked for.

The chain is read by running the model once and watching which tensor operations it makes, so scripted,
traced, frozen and eager models are read by the same code, whatever they are written like.
"""

from __future__ import annotations

from t3ssfast.kernels.plan.cost import Cost, estimate_cost, explain_plan
from t3ssfast.kernels.plan.layers import Layer, LayerKind, Plan
from t3ssfast.kernels.plan.read import has_dense_plan, read_plan
from t3ssfast.kernels.plan.run import run_model

__all__ = [
    "Cost",
    "Layer",
    "LayerKind",
    "Plan",
    "estimate_cost",
    "explain_plan",
    "has_dense_plan",
    "read_plan",
    "run_model",
]
