"""Turn a LeNet-like classifier into a plan that scores every window without repeating work.

A plan is a chain of layers over feature maps at stride 1, exact for convolutions without padding and
pooling in floor mode: a pooling of stride s becomes a dilation by s of the layers behind it ("a trous").
All windows share the feature maps. The fully connected layers are computed only at the requested windows.

The chain is read by running the model once and recording its tensor operations, so that scripted, traced,
frozen and eager models are read by the same code.
"""

from __future__ import annotations

from t3ssfast.kernels.plan.cost import estimate_cost, explain_plan
from t3ssfast.kernels.plan.layers import LayerKind, NoDensePlanError, Plan
from t3ssfast.kernels.plan.read import has_dense_plan, read_plan
from t3ssfast.kernels.plan.run import run_model

__all__ = [
    "LayerKind",
    "NoDensePlanError",
    "Plan",
    "estimate_cost",
    "explain_plan",
    "has_dense_plan",
    "read_plan",
    "run_model",
]
