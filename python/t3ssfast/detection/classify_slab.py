"""The classifier on the windows of a slab."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.detection.lattice import lattice_shape
from t3ssfast.errors import InputError, ModelError
from t3ssfast.kernels import _native
from t3ssfast.kernels.padding import pad_for_windows
from t3ssfast.kernels.score_windows import score_windows
from t3ssfast.models import LoadedModel

__all__ = ["classify_slab", "runs_of_slices"]

Mask = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int64]
Values = FloatArray | torch.Tensor
Scores = tuple[IndexArray, FloatArray]

# Windows of one call, so that memory does not depend on how many a slab has.
WINDOWS_AT_A_TIME = 1 << 18
# Padded slices that are held at a time.
PADDED_BYTES = 64 << 20


def runs_of_slices(region: Mask) -> Iterator[tuple[int, int]]:
    """(a, b) of runs of slices with at most `WINDOWS_AT_A_TIME` windows, unless one slice has more.

    Slices without windows before the first run are left out.
    """
    first, held = 0, 0
    for z, here in enumerate(_native.count_nonzero(region).tolist()):
        if held and held + here > WINDOWS_AT_A_TIME:
            yield first, z
            held = 0
        if not held:
            first = z
        held += here
    if held:
        yield first, len(region)


def classify_slab(
    slab: Values,
    region: Mask,
    model: LoadedModel,
    *,
    stride: int = 1,
    device: str | torch.device = "cpu",
    precision: str = "float32",
    plan: str = "auto",
    batch_size: int | None = None,
) -> Scores:
    """Probability that a particle is centred at each voxel of a region.

    Slices are padded by reflection, so every voxel can be the centre of a window; a window of size n centred
    at c covers c - n//2 ... c - n//2 + n - 1. Slices are classified independently: results do not depend on
    the slab.

    Parameters
    ----------
    slab
        (z, H, W) float32, normalised as the model's metadata says.
    region
        The windows' centres, of the slab's shape; with a stride, one entry for each point of the lattice of
        voxels stride // 2 + k * stride along y and x.
    stride
        Distance of the points of the lattice.
    precision, plan, batch_size
        As for `score_windows`.

    Returns
    -------
    index
        (M,) int64, ascending flat indices of the entries of `region` that are set.
    probability
        (M,) float32 in [0, 1].
    """
    if slab.ndim != 3 or region.shape != lattice_shape(tuple(slab.shape), stride):
        raise InputError(
            f"The slab has shape {tuple(slab.shape)} and the region {region.shape}; "
            f"give two (z, y, x) arrays of one shape, but for the stride of {stride}."
        )
    size = model.metadata.window_px
    if size is None:
        raise ModelError(f"{model.path}: its metadata have no window size; give a classifier.")
    index = _native.flat_nonzero(region)
    probability = np.empty(len(index), np.float32)
    values = slab if isinstance(slab, torch.Tensor) else torch.from_numpy(slab)
    done, first_voxel = 0, stride // 2
    touched = np.flatnonzero(_native.count_nonzero(region))
    padded_bytes = 4 * (slab.shape[1] + size - 1) * (slab.shape[2] + size - 1)
    step = max(1, PADDED_BYTES // padded_bytes)
    for first in range(0, len(touched), step):
        z = touched[first : first + step]
        # Of neighbours, nothing is copied.
        chosen = slice(z[0], z[-1] + 1) if z[-1] - z[0] < len(z) else z
        padded = pad_for_windows(values[chosen].to(device), size)
        padded = padded[:, first_voxel:, first_voxel:].contiguous()
        options: dict[str, Any] = {"precision": precision, "plan": plan, "batch_size": batch_size}
        with model.named_errors(f"windows of {size} x {size} px"):
            answers = score_windows(model, padded, mask=region[chosen], size=size, stride=stride, **options)
        probability[done : done + len(answers)] = _probability(answers, model).cpu().numpy()
        done += len(answers)
    bad = index[np.isnan(probability)]
    if len(bad):
        z_bad = int(bad[0]) // (region.shape[1] * region.shape[2])
        raise ModelError(
            f"{model.path}: the classifier answers NaN on {len(bad)} of {len(index)} windows, first at slice "
            f"{z_bad} of the slab; train it again, or give another."
        )
    return index, probability


def _probability(answers: torch.Tensor, model: LoadedModel) -> torch.Tensor:
    """(M,) probability of the particle from (M, C) answers, checked against the model's metadata."""
    classes, count = model.metadata.classes, answers.shape[1]
    if count != len(classes) and not (count == 1 and len(classes) == 2):
        raise ModelError(
            f"{model.path}: the classifier answers {count} values for a window, and its metadata name "
            f"{len(classes)} classes ({', '.join(classes)}); give a model whose metadata match."
        )
    chosen = model.probability(answers)
    # Rounding may leave [0, 1] by a little; the caller reports NaN.
    outside = chosen[(chosen < -1e-4) | (chosen > 1 + 1e-4)]
    if len(outside):
        raise ModelError(
            f"{model.path}: its metadata say that it answers probabilities, but it answers "
            f'{outside[0].item():.3g}; set output to "logits" in the metadata.'
        )
    return chosen.clamp(0.0, 1.0)
