"""Preselection of the windows of one tomogram, outside of a detection."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from t3ssfast.candidates import Candidates
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.preselect.learn_rule import WindowSample
from t3ssfast.detection.preselect.preselections import Preselection, read_preselection
from t3ssfast.detection.preselect.window_filter import WindowFilter, search_grid
from t3ssfast.errors import InputError, ModelError
from t3ssfast.models import LoadedModel, load_model
from t3ssfast.tomogram import StrPath, Tomogram

__all__ = ["preselect", "sample_windows"]

# Slices prepared and filtered at a time; results do not depend on it.
SLAB_SLICES = 16
# Window of a classifier that does not name its own.
WINDOW_PX = 50


def preselect(
    tomogram: Tomogram,
    membrane: npt.NDArray[Any],
    picks: Candidates | None = None,
    *,
    classifier: StrPath | nn.Module | LoadedModel | None = None,
    contrast_sign: int = 1,
    config: DetectConfig | None = None,
    keep: float = 0.995,
    margin: float = 0.25,
) -> tuple[npt.NDArray[np.uint8], Preselection]:
    """Find the windows near the membrane that are worth classifying.

    Parameters
    ----------
    tomogram, membrane
        The tomogram and a (z, y, x) mask of its shape; non-zero is membrane.
    picks
        T3SS to learn a `PreselectRule` from; None applies the classifier's own preselection.
    classifier
        Model (file) that defines grid, window and normalisation; None is the bundled one.
    contrast_sign
        +1 where protein is dark, -1 where it is bright.
    config
        Options that define the search region.
    keep, margin
        Options of a rule; see `learn_rule`.

    Returns
    -------
    (z, y, x) uint8 mask of the centres of the windows to classify, and the preselection that was applied.

    Raises
    ------
    InputError
        The mask is empty or of another shape, or none of the picks is a T3SS inside the tomogram.
    ModelError
        No picks were given and the classifier has no preselection.
    """
    model = load_model(classifier, model_kind="classifier")
    if not np.any(membrane):
        raise InputError("The membrane mask is empty; give one with the membranes set to 1.")
    grid, search = search_grid(tomogram, membrane, model, config, contrast_sign)
    region = search.slab(0, grid.shape[0])
    if picks is None:
        preselection = read_preselection(model.metadata.preselect)
    else:
        sample = WindowSample.measure(grid, region, picks, model.metadata.window_px or WINDOW_PX)
        preselection = sample.learn(keep, margin)
    if preselection is None:
        raise ModelError(f"{model.path} has no preselection; give picks to learn a rule from.")
    window_filter = WindowFilter(preselection, grid, search, model)
    for z0 in range(0, len(region), SLAB_SLICES):
        z1 = min(len(region), z0 + SLAB_SLICES)
        if region[z0:z1].any():
            region[z0:z1] = window_filter.apply(grid.slab(z0, z1), region[z0:z1], z0)
    return grid.mask_to_tomogram(region), preselection


def sample_windows(
    tomogram: Tomogram,
    membrane: npt.NDArray[Any],
    picks: Candidates,
    *,
    classifier: StrPath | nn.Module | LoadedModel | None = None,
    contrast_sign: int = 1,
    config: DetectConfig | None = None,
) -> WindowSample:
    """Measure the statistics that `preselect` learns from: windows on picks, and others near the membrane.

    The parameters and errors are those of `preselect`.
    """
    model = load_model(classifier, model_kind="classifier")
    grid, search = search_grid(tomogram, membrane, model, config, contrast_sign)
    region = search.slab(0, grid.shape[0])
    return WindowSample.measure(grid, region, picks, model.metadata.window_px or WINDOW_PX)
