"""Estimated cost of a window under either plan, and the choice between them in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from t3ssfast.errors import ConfigError, DeviceError, InputError
from t3ssfast.kernels.plan.layers import NoDensePlanError, Plan, winograd_block_cost
from t3ssfast.kernels.plan.read import read_plan

__all__ = ["estimate_cost", "explain_plan"]

# FLOP/s of one thread on the published 6-16-120-84-2 network with AVX-512. Only their ratio matters, and it
# is about 7 with AVX2, too. `python bench/bench_score_windows.py --calibrate` measures both.
DENSE_RATE = 140e9
WINDOWS_RATE = 16e9
# Side of a tile of the CPU kernel in windows, and the share of a tile's parts that a membrane touches.
TILE = 64
TOUCHED_FRACTION = 0.25
# Below this share of requested windows, along a membrane, few blocks have enough of them for Winograd.
WINOGRAD_MIN_FRACTION = 0.03


@dataclass(frozen=True)
class Cost:
    """Estimated cost per requested window: FLOP by direct sums, and time on one CPU thread."""

    dense_flops: float
    windows_flops: float
    dense_seconds: float
    windows_seconds: float

    @property
    def cheaper_plan(self) -> str:
        """Name of the cheaper plan, "dense" or "windows"."""
        return "dense" if self.dense_seconds <= self.windows_seconds else "windows"


def estimate_cost(plan: Plan, mask_fraction: float = 1.0) -> Cost:
    """Estimate the cost of a window under either plan, if a share of all windows is requested."""
    map_layers, head = plan.layers[: plan.map_layers], plan.layers[plan.map_layers :]
    head_flops = [2.0 * layer.products * layer.channels[1] for layer in head]
    map_flops = single_window_map_flops = 0.0
    halo = sum((layer.kernel[0] - 1) * layer.dilation[0] for layer in (*map_layers, head[0]))
    for layer in map_layers:
        halo -= (layer.kernel[0] - 1) * layer.dilation[0]
        flops_per_value = 2.0 * layer.products or float(math.prod(layer.kernel))
        map_flops += flops_per_value * layer.channels[1] * (1 + halo / TILE) ** 2
        single_window_map_flops += flops_per_value * layer.outputs_in_window
    dense = sum(head_flops) + map_flops / max(mask_fraction, TOUCHED_FRACTION)
    windows = sum(head_flops) + single_window_map_flops
    saved = 0.0
    if plan.winograd_min_windows <= 9 and mask_fraction > WINOGRAD_MIN_FRACTION:
        relative_cost = winograd_block_cost(head[0].kernel) / 9
        saved = head_flops[0] * (1 - relative_cost) * (1 - WINOGRAD_MIN_FRACTION / mask_fraction)
    return Cost(dense, windows, (dense - saved) / DENSE_RATE, windows / WINDOWS_RATE)


def explain_plan(
    model: torch.nn.Module,
    image_shape: Sequence[int],
    mask_fraction: float = 1.0,
    device: str | torch.device = "cpu",
    *,
    size: int = 50,
) -> str:
    """Explain which plan `score_windows` chooses, why, and what it costs.

    Parameters
    ----------
    model
        As for `score_windows`.
    image_shape
        (H, W) or (N, H, W).
    mask_fraction
        Share of the windows that the mask selects, 0 to 1.
    device
        Device of the image.
    size
        Side of a window in pixels.

    Raises
    ------
    InputError, ConfigError, DeviceError
        If the image is smaller than a window, or an argument is invalid.
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
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f'device is {device!r}; give "cpu", "cuda" or "cuda:1".') from error
    count = math.prod(shape[:-2]) * (shape[-2] - size + 1) * (shape[-1] - size + 1)
    requested = round(count * mask_fraction)
    text = f"{requested:,} of {count:,} windows of {size} x {size} are asked for on {device}.\n"
    try:
        plan = read_plan(model, size)
    except NoDensePlanError as reason:
        return f'{text}Plan "windows": the model is run on batches of windows, because {reason}.'
    cost = estimate_cost(plan, mask_fraction)
    dense = cost.cheaper_plan == "dense"
    why = "feature maps are shared by all windows" if dense else "the windows share too little"
    return (
        f'{text}Plan "{cost.cheaper_plan}": {why}. The model reads as: {plan.describe()}.\n'
        f'A window costs about {cost.dense_flops / 1e6:.3g} MFLOP by plan "dense" and '
        f'{cost.windows_flops / 1e6:.3g} MFLOP by plan "windows".\n'
        f"One CPU thread would take about {requested * cost.dense_seconds:.2g} s by the former and "
        f"{requested * cost.windows_seconds:.2g} s by the latter."
    )
