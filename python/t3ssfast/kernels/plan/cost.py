"""What a window costs under either plan, and which one is chosen: estimated, and in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from t3ssfast.errors import ConfigError, DeviceError, InputError
from t3ssfast.kernels.plan.layers import Plan
from t3ssfast.kernels.plan.read import read_plan
from t3ssfast.kernels.plan.winograd import cost_of_nine

__all__ = ["Cost", "estimate_cost", "explain_plan"]


@dataclass(frozen=True)
class Cost:
    """Estimated cost of a plan for one window asked for.

    Parameters
    ----------
    dense_flops, windows_flops
        Floating-point operations of every window by itself, halos of tiles included; nine windows done
        together take fewer.
    dense_seconds, windows_seconds
        On one CPU thread.
    """

    dense_flops: float
    windows_flops: float
    dense_seconds: float
    windows_seconds: float


# Rates of one thread, in FLOP/s, on the published 6-16-120-84-2 network with AVX-512; their ratio is what
# decides, and it is about 7 with AVX2. `python bench/bench_sliding.py --calibrate` measures both.
DENSE_RATE = 140e9
WINDOWS_RATE = 16e9
TILE = 64
# A membrane covers about this share of the pieces of a tile that the kernel divides it into.
PIECE_FRACTION = 0.25
# Up to this share of windows asked for, along a membrane, few lie so close that nine are done together.
ALONE_FRACTION = 0.03


def estimate_cost(plan: Plan, mask_fraction: float = 1.0) -> Cost:
    """Estimates what a window costs under either plan.

    Parameters
    ----------
    plan
        A plan that was read.
    mask_fraction
        Share of all windows that is asked for, 0 to 1.
    """
    flops = [2.0 * layer.products() * layer.channels[1] for layer in plan.layers[plan.map_layers :]]
    first, head = flops[0], sum(flops)
    maps = alone = 0.0
    reach = sum((layer.kernel[0] - 1) * layer.step[0] for layer in plan.layers[: plan.map_layers + 1])
    for layer in plan.layers[: plan.map_layers]:
        reach -= (layer.kernel[0] - 1) * layer.step[0]
        per_value = 2.0 * layer.products() or float(math.prod(layer.kernel))
        maps += per_value * layer.channels[1] * (1 + reach / TILE) ** 2
        alone += per_value * layer.outputs_in_window
    dense = head + maps / max(mask_fraction, PIECE_FRACTION)
    windows = head + alone
    saved = 0.0
    if plan.least_of_nine <= 9 and mask_fraction > ALONE_FRACTION:
        together = cost_of_nine(plan.layers[plan.map_layers].kernel) / 9
        saved = first * (1 - together) * (1 - ALONE_FRACTION / mask_fraction)
    return Cost(dense, windows, (dense - saved) / DENSE_RATE, windows / WINDOWS_RATE)


def explain_plan(
    model: torch.nn.Module,
    image_shape: Sequence[int],
    mask_fraction: float = 1.0,
    device: str | torch.device = "cpu",
    *,
    size: int = 50,
) -> str:
    """Says which plan `score_windows` would take, why, and what it costs.

    Parameters
    ----------
    model
        As for `score_windows`.
    image_shape
        (H, W) or (N, H, W).
    mask_fraction
        Share of the windows that the mask holds, 0 to 1.
    device
        Where it is to run.
    size
        Edge of a window in voxels.

    Raises
    ------
    InputError, ConfigError, DeviceError
        If the image is smaller than a window, the fraction is not one, or the device has no such name.
    ModelError
        If the model cannot be run on such windows.
    """
    shape = tuple(int(n) for n in image_shape)
    if len(shape) not in (2, 3) or min(shape[-2:]) < size:
        raise InputError(
            f"image_shape is {shape}; give (H, W) or (N, H, W) of at least one window, {size} x {size}."
        )
    if not 0 <= mask_fraction <= 1:
        raise ConfigError(f"mask_fraction is {mask_fraction!r}; give a number from 0 to 1.")
    count = math.prod(shape[:-2]) * (shape[-2] - size + 1) * (shape[-1] - size + 1)
    asked = round(count * mask_fraction)
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f'device is {device!r}; give "cpu", "cuda" or "cuda:1".') from error
    lines = [f"{asked:,} of {count:,} windows of {size} x {size} are asked for on {where}."]
    plan = read_plan(model, size)
    if isinstance(plan, str):
        lines.append(f'Plan "windows": the model is run on batches of windows, because {plan}.')
        return "\n".join(lines)
    cost = estimate_cost(plan, mask_fraction)
    chosen = "dense" if cost.dense_seconds <= cost.windows_seconds else "windows"
    why = "feature maps are shared by all windows" if chosen == "dense" else "the windows share too little"
    lines.append(
        f'Plan "{chosen}": {why}. The model reads as: {plan.describe()}.\n'
        f'A window costs about {cost.dense_flops / 1e6:.3g} MFLOP by plan "dense" and '
        f'{cost.windows_flops / 1e6:.3g} MFLOP by plan "windows".\n'
        f"One CPU thread would take about {asked * cost.dense_seconds:.2g} s by the former and "
        f"{asked * cost.windows_seconds:.2g} s by the latter."
    )
    return "\n".join(lines)
