"""Runs a classifier on every window of an image at stride 1, or on those a mask asks for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast import _native
from t3ssfast.errors import ConfigError, InputError, ModelError
from t3ssfast.models import LoadedModel
from t3ssfast.plan import Plan, estimate_cost, read_plan, run_model
from t3ssfast.windows import pad_for_windows

__all__ = ["classify_slab", "score_windows"]

PLANS = ("auto", "windows", "dense")
PRECISIONS = ("float32", "tf32", "bfloat16")

# Batches at which torch is near its best; larger ones only take memory.
CPU_BATCH = 512
CUDA_BATCH = 4096
# Padded slices are held in pieces of about this size.
SLAB_PIECE_BYTES = 64 << 20


def score_windows(
    model: torch.nn.Module | LoadedModel,
    image: npt.NDArray[Any] | torch.Tensor,
    *,
    mask: npt.NDArray[Any] | torch.Tensor | None = None,
    size: int = 50,
    precision: str = "float32",
    plan: str = "auto",
    batch_size: int | None = None,
) -> Any:
    """What a classifier answers on windows of an image, each by itself.

    Parameters
    ----------
    model
        TorchScript (scripted, traced or frozen) or eager module in evaluation mode, float32, mapping
        (M, 1, size, size) to (M, C), on the image's device; or a loaded model.
    image
        (H, W) or (N, H, W), numpy array or torch tensor, finite.
    mask
        (..., H-size+1, W-size+1): windows asked for, by top-left corner; all where None.
    size
        Edge of a window in voxels.
    precision
        "float32": within 1e-4 of the model run window by window. "tf32" and "bfloat16" let a CUDA device
        multiply numbers rounded to 10 and 7 bits of mantissa, which is faster and answers a few 1e-4 and 1e-3
        of the largest score away. On a CPU, "tf32" is float32 and "bfloat16" is refused.
    plan
        "dense": shared feature maps, exact, for LeNet-like chains. "windows": batches of windows, for any
        model. "auto": the one that `explain_plan` says is cheaper.
    batch_size
        Windows run at once by plan "windows"; never more than so many are held.

    Returns
    -------
    (M, C) where a mask is given, in C order of its windows, else (C, ..., H-size+1, W-size+1); float32, of
    the image's kind and on its device.

    Raises
    ------
    InputError
        If the image or the mask has the wrong shape or kind, or the image holds NaN or Inf.
    ConfigError
        If an option has a value that cannot be used.
    ModelError
        If the model cannot be run on such windows, or plan "dense" is asked for and cannot be had.
    """
    if plan not in PLANS:
        raise ConfigError(f'plan is {plan!r}; give "auto", "windows" or "dense".')
    if precision not in PRECISIONS:
        raise ConfigError(f'precision is {precision!r}; give "float32", "tf32" or "bfloat16".')
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; give 1 or more, or None.")
    module = model if isinstance(model, torch.nn.Module) else model.module
    stack = _native.as_stack(image)
    size = _native.check_size(size, stack)
    windows = _native.as_windows(stack, size, mask)
    if precision == "bfloat16" and stack.device.type != "cuda":
        raise ConfigError(
            f'precision "bfloat16" needs a CUDA device, and the image is on {stack.device}; use "float32".'
        )
    chosen = _choose(module, size, plan, windows, stack.device)
    if chosen is not None:
        answer = _native.score_windows(stack, size, chosen.program(), windows, precision=precision)
    else:
        answer = _score_batches(module, stack, size, windows, precision, batch_size)
    return _native.to_caller(answer, stack)


def _choose(
    model: torch.nn.Module, size: int, plan: str, windows: _native.Windows, device: torch.device
) -> Plan | None:
    """The dense plan, or None for plan "windows"."""
    if plan == "windows":
        return None
    read = read_plan(model, size, device)
    if isinstance(read, str):
        if plan == "dense":
            raise ModelError(
                f'The model cannot be run by plan "dense", because {read}; use plan "windows" or "auto".'
            )
        return None
    if plan == "dense":
        return read
    every = max(1, math.prod(windows.shape))
    cost = estimate_cost(read, windows.count / every)
    return read if cost.dense_seconds <= cost.windows_seconds else None


def _score_batches(
    model: torch.nn.Module,
    stack: _native.ImageStack,
    size: int,
    windows: _native.Windows,
    precision: str,
    batch_size: int | None,
) -> torch.Tensor:
    """Plan "windows": (M, C) where windows are listed, else (C, every window)."""
    if batch_size is None:
        batch_size = CUDA_BATCH if stack.device.type == "cuda" else CPU_BATCH
    buffer = torch.zeros((min(batch_size, max(windows.count, 1)), 1, size, size), device=stack.device)
    out: torch.Tensor | None = None
    for first in range(0, max(windows.count, 1), batch_size):
        last = min(first + batch_size, windows.count)
        if windows.index is None:
            index = torch.arange(first, last, device=stack.device)
        else:
            index = windows.index[first:last]
        # An empty mask is answered too: run on a blank window, the model says how many classes there are.
        batch = buffer[: max(last - first, 1)]
        _native.unfold(stack, size, _native.Windows(windows.shape, index), zscore=False, out=batch)
        answer = run_model(model, batch, precision=precision)[: last - first]
        if out is None:
            classes = answer.shape[1]
            shape = (classes, windows.count) if windows.index is None else (windows.count, classes)
            out = answer.new_empty(shape)
        if windows.index is None:
            out[:, first:last] = answer.T
        else:
            out[first:last] = answer
    assert out is not None  # at least one batch is run
    return out if windows.index is not None else out.reshape(len(out), *windows.shape)


# ------------------------------------------------------------------------------------------- in detection


def classify_slab(
    slab: npt.NDArray[np.float32] | torch.Tensor,
    region: npt.NDArray[np.uint8],
    model: LoadedModel,
    *,
    device: str | torch.device = "cpu",
    precision: str = "float32",
    plan: str = "auto",
    batch_size: int | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Probability that a particle is centred at each voxel of a region.

    Slices are padded by reflection, so every voxel can be the centre of a window; a window of size n centred
    at c covers c - n//2 ... c - n//2 + n - 1. A slice is judged by itself: results do not depend on the slab.

    Parameters
    ----------
    slab
        (z, H, W) float32, normalised as the model's metadata says; an array, or a tensor on any device.
    region
        (z, H, W) uint8 or bool: voxels to judge.
    model
        A loaded classifier; its module is on `device`.
    device
        Where it runs.
    precision, plan, batch_size
        As for `score_windows`.

    Returns
    -------
    index
        (M,) int64, ascending flat indices into the slab: every voxel of the region.
    probability
        (M,) float32 in [0, 1].

    Raises
    ------
    InputError
        If the shapes differ.
    ModelError
        If the model cannot be run, answers NaN, or answers something else than its metadata says.
    """
    if slab.ndim != 3 or tuple(slab.shape) != region.shape:
        raise InputError(
            f"The slab has shape {tuple(slab.shape)} and the region {region.shape}; "
            "give two (z, y, x) arrays alike."
        )
    size = model.metadata.window_px
    if size is None:
        raise ModelError(f"{model.path}: its metadata have no window size; give a classifier.")
    index = np.flatnonzero(region).astype(np.int64, copy=False)
    probability = np.empty(len(index), np.float32)
    plane = slab.shape[1] * slab.shape[2]
    values = slab if isinstance(slab, torch.Tensor) else torch.from_numpy(slab)
    done = 0
    for z in _pieces(region, size):
        padded = pad_for_windows(values[torch.from_numpy(z)].to(device), size)
        mask = torch.from_numpy(np.ascontiguousarray(region[z])).to(device)
        answers = score_windows(
            model, padded, mask=mask, size=size, precision=precision, plan=plan, batch_size=batch_size
        )
        here = len(answers)
        probability[done : done + here] = _probability(answers, model).cpu().numpy()
        done += here
    bad = int(np.count_nonzero(np.isnan(probability)))
    if bad:
        first = int(index[np.isnan(probability)][0])
        raise ModelError(
            f"{model.path}: the classifier answers NaN on {bad} of {len(index)} windows, first at slice "
            f"{first // plane} of the slab; train it again, or give another."
        )
    return index, probability


def _pieces(region: npt.NDArray[np.uint8], size: int) -> Iterator[npt.NDArray[np.int64]]:
    """Slices that hold something of the region, a few at a time."""
    touched = np.flatnonzero(region.reshape(len(region), -1).any(axis=1))
    padded_bytes = 4 * (region.shape[1] + size - 1) * (region.shape[2] + size - 1)
    step = max(1, SLAB_PIECE_BYTES // padded_bytes)
    for first in range(0, len(touched), step):
        yield touched[first : first + step]


def _probability(answers: torch.Tensor, model: LoadedModel) -> torch.Tensor:
    """(M,) probability of the particle from (M, C) answers, where they are what the metadata promise."""
    classes, count = model.metadata.classes, answers.shape[1]
    if count != len(classes) and not (count == 1 and len(classes) == 2):
        raise ModelError(
            f"{model.path}: the classifier answers {count} values for a window, and its metadata name "
            f"{len(classes)} classes ({', '.join(classes)}); give one whose metadata fit."
        )
    chosen = model.probability(answers)
    # Rounding may leave [0, 1] by a little; anything else was no probability. NaN is told of by the caller.
    strange = chosen[(chosen < -1e-4) | (chosen > 1 + 1e-4)]
    if len(strange):
        raise ModelError(
            f"{model.path}: its metadata promise probabilities, and it answers {strange[0].item():.3g}; "
            'set output to "logits" there.'
        )
    return chosen.clamp(0.0, 1.0)
