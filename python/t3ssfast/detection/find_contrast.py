"""The contrast of tomograms outside of a detection: for subtomograms, averages and training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.contrast import (
    contrast_from_membrane,
    contrast_from_segmenter,
    given_contrast,
)
from t3ssfast.detection.inputs import Model, normalise
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.models import LoadedModel, load_model
from t3ssfast.tomogram import Tomogram

__all__ = ["CONTRASTS", "check_contrast", "contrast_of_each", "contrast_of_mask", "find_contrasts"]

Mask = npt.NDArray[Any]

CONTRASTS = ("auto", "dark", "light")


def check_contrast(contrast: str) -> None:
    """Raise ConfigError unless a contrast is "auto", "dark" or "light"."""
    if contrast not in CONTRASTS:
        raise ConfigError(f"contrast is {contrast!r}; give one of {', '.join(CONTRASTS)}.")


def find_contrasts(
    tomograms: Sequence[Tomogram],
    membranes: Sequence[Any] | None = None,
    segmenter: Model = None,
) -> list[tuple[str, str]]:
    """Find the contrast of tomograms as a detection does.

    Parameters
    ----------
    tomograms
        Tomograms of either contrast.
    membranes
        (z, y, x) masks of the tomograms; an entry may be None. The segmenter is run on a few slices with both
        signs, and only what it sees in a mask counts.
    segmenter
        As for `detect`.

    Returns
    -------
    Contrast, "dark" or "light", and how it was found, for each tomogram.
    """
    config, model = DetectConfig(), None
    found = []
    for number, tomogram in enumerate(tomograms):
        mask = None if membranes is None else membranes[number]
        model = model or load_model(segmenter, model_kind="segmenter")
        if mask is not None:
            if tuple(mask.shape) != tomogram.shape:
                raise InputError(
                    f"The membrane mask of {tomogram.name} has shape {tuple(mask.shape)} and the tomogram "
                    f"{tomogram.shape}; give a mask of the tomogram's shape."
                )
            contrast = _of_mask(tomogram, mask, model, config)
        else:
            contrast = contrast_from_segmenter(normalise(tomogram, model), model, config)
        found.append(("dark" if contrast["sign"] > 0 else "light", str(contrast["how"])))
    if model is not None:
        model.release_engines()
    return found


def contrast_of_mask(tomogram: Tomogram, membrane: Mask, config: DetectConfig) -> dict[str, Any]:
    """Return what `contrast_from_membrane` does for a mask of the tomogram, by the bundled segmenter."""
    if config.contrast != "auto":
        return given_contrast(config)
    model = load_model(None, model_kind="segmenter")
    contrast = _of_mask(tomogram, membrane, model, config)
    model.release_engines()
    return contrast


def _of_mask(
    tomogram: Tomogram, membrane: Mask, segmenter: LoadedModel, config: DetectConfig
) -> dict[str, Any]:
    grid = normalise(tomogram, segmenter)
    mask = grid.mask_from_tomogram(membrane, 0, grid.shape[0])
    return contrast_from_membrane(grid, mask, segmenter, config)


def contrast_of_each(
    tomograms: Sequence[Tomogram],
    contrast: str | Sequence[str],
    membranes: Sequence[Any] | None = None,
    segmenter: Model = None,
) -> list[str]:
    """Return "dark" or "light" for each tomogram: one for all, one each, or found where it is "auto"."""
    given = [contrast] * len(tomograms) if isinstance(contrast, str) else list(contrast)
    if len(given) != len(tomograms):
        raise InputError(
            f"There are {len(given)} contrasts for {len(tomograms)} tomograms; give one, or one for each."
        )
    for value in given:
        check_contrast(value)
    unknown = [number for number, value in enumerate(given) if value == "auto"]
    masks = None if membranes is None else [membranes[number] for number in unknown]
    found = find_contrasts([tomograms[number] for number in unknown], masks, segmenter)
    for number, (value, _) in zip(unknown, found, strict=True):
        given[number] = value
    return given
