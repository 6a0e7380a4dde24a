"""Training tomograms on the model's grid, and their split into training and validation."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import Candidates
from t3ssfast.detection.find_contrast import contrast_of_each
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.errors import InputError
from t3ssfast.tomogram import Tomogram
from t3ssfast.training.options import TrainOptions

__all__ = ["TrainingTomogram", "prepare_tomograms", "split_tomograms"]

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TrainingTomogram:
    """A tomogram on the model's grid, with its annotation; its slices ``z0 <= z < z1`` are used."""

    prepared: PreparedTomogram
    membrane: npt.NDArray[np.uint8] | None
    targets_zyx: Float64Array  # (n, 3) centres of the T3SS
    others_zyx: Float64Array  # (n, 3) centres of picks of another kind
    z0: int
    z1: int

    def in_slices(self, centres: Float64Array) -> npt.NDArray[np.bool_]:
        """Return which of (n, 3) centres lie within the range of slices."""
        return (centres[:, 0] >= self.z0 - 0.5) & (centres[:, 0] < self.z1 - 0.5)

    def picks_on_grid(self, picks: Candidates) -> Float64Array:
        """Return the (n, 3) centres of picks on the model's grid."""
        return _on_grid(picks, self.prepared)

    def fingerprint(self) -> list[Any]:
        """Return plain values that identify the tomogram and its annotation, for a checkpoint's key."""
        tomogram, middle = self.prepared.tomogram, self.prepared.shape[0] // 2
        return [
            tomogram.name,
            tomogram.shape,
            tomogram.voxel_size_angstrom,
            zlib.crc32(self.prepared.slab(middle, middle + 1).tobytes()),
            None if self.membrane is None else zlib.crc32(self.membrane.tobytes()),
            self.targets_zyx.tolist(),
            self.others_zyx.tolist(),
        ]


def prepare_tomograms(
    tomograms: Sequence[Tomogram],
    membranes: Sequence[npt.NDArray[Any] | None] | None,
    picks: Sequence[Candidates] | None,
    options: TrainOptions,
    contrast: str | Sequence[str] = "dark",
) -> list[TrainingTomogram]:
    """Resample tomograms, membranes and picks to the model's grid, and check that they match.

    Tomograms with light protein are inverted; with the contrast "auto" it is found as a detection does.
    """
    if len(tomograms) == 0:
        raise InputError("There is no tomogram to train on; give at least one.")
    for name, given in (("membranes", membranes), ("picks", picks)):
        if given is not None and len(given) != len(tomograms):
            raise InputError(
                f"There are {len(given)} {name} for {len(tomograms)} tomograms; give one for each."
            )
    prepared_tomograms = []
    contrasts = contrast_of_each(tomograms, contrast, membranes)
    for k, tomogram in enumerate(tomograms):
        prepared = PreparedTomogram.prepare(
            tomogram,
            voxel_size_angstrom=options.voxel_size_angstrom,
            normalisation=options.normalisation,
            contrast_sign=1 if contrasts[k] == "dark" else -1,
        )
        depth = prepared.shape[0]
        mask = None if membranes is None else membranes[k]
        membrane = None if mask is None else prepared.mask_from_tomogram(mask, 0, depth)
        no_picks = np.zeros((0, 3))
        targets, others = (no_picks, no_picks) if picks is None else _picks_on_grid(picks[k], prepared)
        prepared_tomograms.append(TrainingTomogram(prepared, membrane, targets, others, 0, depth))
    return prepared_tomograms


def _picks_on_grid(picks: Candidates, prepared: PreparedTomogram) -> tuple[Float64Array, Float64Array]:
    """Return (n, 3) centres of the T3SS and of the other picks on the model's grid."""
    tomogram, centre = prepared.tomogram, _on_grid(picks, prepared)
    inside = np.all((centre > -1) & (centre < np.array(prepared.shape)), axis=1)
    if not inside.all():
        raise InputError(
            f"{(~inside).sum()} of {len(picks)} picks lie outside {tomogram.name} (shape {tomogram.shape}), "
            f"for example (z, y, x) = {picks.centre_zyx[~inside][0].tolist()}; check their voxel size and "
            "axis order."
        )
    is_target = picks.kind == "t3ss"
    return centre[is_target], centre[~is_target]


def _on_grid(picks: Candidates, prepared: PreparedTomogram) -> Float64Array:
    """Return the (n, 3) centres of picks, which may come from another binning of the same volume."""
    # Both count from voxel centres.
    factor = picks.voxel_size_angstrom / prepared.tomogram.voxel_size_angstrom
    return prepared.from_tomogram((np.asarray(picks.centre_zyx, np.float64) + 0.5) * factor - 0.5)


def split_tomograms(
    tomograms: Sequence[TrainingTomogram], options: TrainOptions
) -> tuple[list[TrainingTomogram], list[TrainingTomogram]]:
    """Split into training and validation: whole tomograms, or the last slices of a single one."""
    fraction = options.validation_fraction
    if len(tomograms) == 1:
        only = tomograms[0]
        cut = min(only.z1 - 1, max(1, round(only.z1 * (1 - fraction))))
        if len(only.targets_zyx):
            # The validation needs at least one T3SS, the one with the highest z.
            cut = min(cut, max(1, int(only.targets_zyx[:, 0].max())))
        if only.z1 < 2:
            raise InputError(
                "The only tomogram has one slice, which cannot be used for both training and validation; "
                "give more slices."
            )
        return [replace(only, z1=cut)], [replace(only, z0=cut)]
    count = min(len(tomograms) - 1, max(1, round(fraction * len(tomograms))))
    order = np.random.default_rng([options.seed, 1]).permutation(len(tomograms)).tolist()
    # The sort is stable: tomograms with T3SS come first, in random order.
    order.sort(key=lambda k: len(tomograms[k].targets_zyx) == 0)
    held_out = set(order[:count])
    training = [tomogram for k, tomogram in enumerate(tomograms) if k not in held_out]
    return training, [tomogram for k, tomogram in enumerate(tomograms) if k in held_out]
