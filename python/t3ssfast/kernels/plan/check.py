"""The last word on a plan: it must give what the model gives."""

from __future__ import annotations

from dataclasses import replace

import torch

from t3ssfast.kernels import _native
from t3ssfast.kernels.plan.chain import Unreadable
from t3ssfast.kernels.plan.layers import Plan
from t3ssfast.kernels.plan.run import run_model
from t3ssfast.kernels.plan.winograd import NEVER

__all__ = ["check_plan"]

# The plan must give what the model gives to this, relative to the largest answer or 1.
TOLERANCE = 1e-4


def check_plan(plan: Plan, model: torch.nn.Module, device: torch.device) -> Plan:
    """Compares the plan with the model on a few windows of noise of several heights and offsets.

    Returns
    -------
    The plan; without nines where only they differ.

    Raises
    ------
    Unreadable
        If the plan differs from the model.
    """
    size, extra = plan.size, 5
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, size + extra, size + extra, generator=generator)
    images *= torch.tensor([1.0, 0.1, 5.0, 1.0])[:, None, None]
    images += torch.tensor([0.0, 0.5, -2.0, 3.0])[:, None, None]
    places = torch.tensor([0, extra, 8, 22, extra * (extra + 1), (extra + 1) ** 2 - 1])
    index = (places + torch.arange(len(images))[:, None] * (extra + 1) ** 2).sort().values.reshape(-1)
    batch = images.unfold(1, size, 1).unfold(2, size, 1).reshape(-1, 1, size, size)[index].to(device)
    wanted = run_model(model, batch).cpu()
    stack = _native.as_stack(images.to(device))
    windows = _native.Windows(stack.window_shape(size), index.to(device))
    tolerance = TOLERANCE * max(1.0, wanted.abs().max().item())

    def error(least_of_nine: int) -> float:
        try:
            given = _native.score_windows(stack, size, plan.program(), windows, least_of_nine=least_of_nine)
        except ValueError as problem:  # more layers, or wider ones, than a CUDA block holds
            raise Unreadable(str(problem).rstrip(".")) from problem
        if given.shape != wanted.shape:
            raise Unreadable(f"it gives {wanted.shape[1]} classes and the plan {given.shape[1]}")
        return float((given.cpu() - wanted).abs().max().item())

    one_by_one = error(NEVER)
    if not one_by_one <= tolerance:
        raise Unreadable(
            f"the plan differs from the model by {one_by_one:.2g} on random windows, so the model does more "
            "than its layers show"
        )
    if plan.least_of_nine == NEVER or device.type != "cpu" or error(1) <= tolerance:
        return plan
    return replace(plan, nines=False)
