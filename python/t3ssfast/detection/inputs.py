"""What a detection is given, opened and checked; and which way round its protein is."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.segment import find_contrast_sign
from t3ssfast.errors import InputError
from t3ssfast.io import read
from t3ssfast.io.volumes.opening import as_numpy
from t3ssfast.models import LoadedModel
from t3ssfast.runtime.progress import Stages
from t3ssfast.tomogram import Array, StrPath, Tomogram

__all__ = [
    "Model",
    "check_window",
    "contrast_by_model",
    "contrast_in_mask",
    "open_mask",
    "prepare",
    "trained_sign",
    "window_of",
]

Model = StrPath | nn.Module | LoadedModel | None

# Slices on which the grey values in a given membrane are compared with those outside.
SIGN_SLICES = 12
DARK, LIGHT = 1, -1


def open_mask(membrane: StrPath | Array, source: Tomogram) -> npt.NDArray[Any]:
    """The given membrane mask, checked against the tomogram."""
    if isinstance(membrane, str | os.PathLike):
        name = os.fspath(membrane)
        # The header of a mask is often without a voxel size; it must be the tomogram's anyway.
        mask = read(membrane, voxel_size_angstrom=source.voxel_size_angstrom).data
    else:
        name, mask = "The membrane mask", as_numpy(membrane)
    if mask.shape != source.shape:
        raise InputError(
            f"{name} has shape {tuple(mask.shape)} but the tomogram {source.name} has {source.shape}; give a "
            f"mask with one voxel for each of the tomogram's."
        )
    if not np.any(mask):
        raise InputError(f"{name} is empty; set the membranes to 1, or leave it out to have them segmented.")
    return mask


def prepare(source: Tomogram, model: LoadedModel) -> PreparedTomogram:
    """The tomogram as a model wants to see it."""
    return PreparedTomogram.prepare(
        source,
        voxel_size_angstrom=model.metadata.voxel_size_angstrom,
        normalisation=model.metadata.normalisation,
    )


def window_of(judge: LoadedModel) -> int:
    """Side of a classifier's windows in pixels."""
    size = judge.metadata.window_px
    assert size is not None, "load_model gives every classifier a window"
    return size


def check_window(grid: PreparedTomogram, judge: LoadedModel) -> None:
    """Refuse a tomogram whose slices are smaller than a window."""
    size, (_, height, width) = window_of(judge), grid.shape
    if min(height, width) < size:
        nm = grid.voxel_size_angstrom / 10
        raise InputError(
            f"{grid.tomogram.name}: its slices measure {height * nm:.0f} x {width * nm:.0f} nm (y, x), less "
            f"than the classifier's window of {size * nm:.0f} nm; give a larger tomogram, or check its voxel "
            f"size ({grid.tomogram.voxel_size_angstrom:g} A)."
        )


def trained_sign(model: LoadedModel) -> int:
    """What the model was trained on."""
    return DARK if model.metadata.contrast == "dark" else LIGHT


def contrast_by_model(
    grid: PreparedTomogram, finder: LoadedModel, config: DetectConfig, stages: Stages
) -> dict[str, Any]:
    """Whether protein is dark: as given, or under which sign the segmenter sees more membrane."""
    if config.contrast != "auto":
        return {"sign": DARK if config.contrast == "dark" else LIGHT, "how": "given"}
    with stages("contrast"):
        found = find_contrast_sign(grid, finder, engine=config.segmenter_engine)
    return {
        # The sign found is the one that the model likes; one trained on light protein likes the other.
        "sign": found.sign * trained_sign(finder),
        "how": "the sign under which the segmenter sees more membrane",
        "membrane_as_given": found.evidence_dark,
        "membrane_inverted": found.evidence_light,
    }


def contrast_in_mask(
    grid: PreparedTomogram, given: npt.NDArray[Any], judge: LoadedModel, config: DetectConfig
) -> dict[str, Any]:
    """Whether protein is dark: as given, or whether the membrane is darker than the rest."""
    if config.contrast != "auto":
        return {"sign": DARK if config.contrast == "dark" else LIGHT, "how": "given"}
    mask = grid.mask_from_tomogram(given, 0, grid.shape[0])
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    # Evenly spread over the slices with membrane; all of them where they are few.
    chosen = slices[:: max(1, len(slices) // SIGN_SLICES)]
    inside, outside = [], []
    for z in chosen.tolist():
        values, membrane = grid.slab(z, z + 1)[0], mask[z] != 0
        if not membrane.all():
            inside.append(float(values[membrane].mean(dtype=np.float64)))
            outside.append(float(values[~membrane].mean(dtype=np.float64)))
    difference = float(np.mean(inside) - np.mean(outside)) if inside else 0.0
    return {
        "sign": LIGHT if difference > 0 else DARK,
        "how": "the grey values in the given membrane against those outside",
        "membrane_minus_rest_sigmas": difference,
    }
