"""Comparison of a plan with the model that it was read from."""

from __future__ import annotations

from dataclasses import replace

import torch

from t3ssfast.kernels import _native
from t3ssfast.kernels.plan.layers import NoDensePlanError, Plan
from t3ssfast.kernels.plan.run import run_model
from t3ssfast.kernels.plan.winograd import WINOGRAD_OFF

__all__ = ["check_plan"]

# Largest difference between plan and model, relative to the largest score or 1.
TOLERANCE = 1e-4


def check_plan(plan: Plan, model: torch.nn.Module, device: torch.device) -> Plan:
    """Compare a plan with its model on windows of noise with several amplitudes and offsets.

    Returns the plan, with Winograd switched off if only that path differs from the model. Raises
    `NoDensePlanError` if the plan differs.
    """
    size, margin = plan.size, 5
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, size + margin, size + margin, generator=generator)
    images *= torch.tensor([1.0, 0.1, 5.0, 1.0])[:, None, None]
    images += torch.tensor([0.0, 0.5, -2.0, 3.0])[:, None, None]
    corners = torch.tensor([0, margin, 8, 22, margin * (margin + 1), (margin + 1) ** 2 - 1])
    index = (corners + torch.arange(len(images))[:, None] * (margin + 1) ** 2).sort().values.reshape(-1)
    batch = images.unfold(1, size, 1).unfold(2, size, 1).reshape(-1, 1, size, size)[index].to(device)
    expected = run_model(model, batch).cpu()
    stack = _native.as_stack(images.to(device))
    windows = _native.Windows(stack.window_shape(size), index.to(device))
    tolerance = TOLERANCE * max(1.0, expected.abs().max().item())

    def max_error(min_windows: int) -> float:
        try:
            scores = _native.score_windows(stack, size, plan.program(), windows, least_of_nine=min_windows)
        except ValueError as error:  # more or wider layers than fit a CUDA block
            raise NoDensePlanError(str(error).rstrip(".")) from error
        if scores.shape != expected.shape:
            raise NoDensePlanError(f"it gives {expected.shape[1]} classes and the plan {scores.shape[1]}")
        return float((scores.cpu() - expected).abs().max().item())

    error = max_error(WINOGRAD_OFF)
    # Negated, so that NaN fails.
    if not error <= tolerance:
        raise NoDensePlanError(
            f"the plan differs from the model by {error:.2g} on random windows, so the model does more "
            "than its layers show"
        )
    if plan.winograd_min_windows == WINOGRAD_OFF or device.type != "cpu" or max_error(1) <= tolerance:
        return plan
    return replace(plan, winograd=False)
