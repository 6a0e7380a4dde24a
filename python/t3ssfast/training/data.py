"""Training tomograms on the model's grid, and which of them are kept for validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import Candidates
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.errors import InputError
from t3ssfast.tomogram import Tomogram
from t3ssfast.training.options import TrainOptions

__all__ = ["TrainingTomogram", "prepare_tomograms", "split_tomograms"]


@dataclass(frozen=True)
class TrainingTomogram:
    """One tomogram to learn from.

    Attributes
    ----------
    prepared
        On the model's grid.
    membrane
        (z, y, x) uint8 on that grid, or None.
    targets_zyx, others_zyx
        (n, 3) centres on that grid: of the T3SS, and of what was picked under another kind.
    z0, z1
        Slices that may be looked at.
    """

    prepared: PreparedTomogram
    membrane: npt.NDArray[np.uint8] | None
    targets_zyx: npt.NDArray[np.float64]
    others_zyx: npt.NDArray[np.float64]
    z0: int
    z1: int

    def in_reach(self, centres: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """(n,) which centres lie within the slices of this source."""
        return (centres[:, 0] >= self.z0 - 0.5) & (centres[:, 0] < self.z1 - 0.5)

    def centres_in_reach(self, centres: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Those centres that lie within the slices of this source."""
        return centres[self.in_reach(centres)]


def prepare_tomograms(
    tomograms: Sequence[Tomogram],
    membranes: Sequence[npt.NDArray[Any] | None] | None,
    picks: Sequence[Candidates] | None,
    options: TrainOptions,
) -> list[TrainingTomogram]:
    """Lay the model's grid over every tomogram, its membrane and its picks.

    Raises
    ------
    InputError
        There is nothing to train on, or the lists do not match.
    """
    if len(tomograms) == 0:
        raise InputError("There is no tomogram to train on; give at least one.")
    for name, given in (("membranes", membranes), ("picks", picks)):
        if given is not None and len(given) != len(tomograms):
            raise InputError(
                f"There are {len(given)} {name} for {len(tomograms)} tomograms; give one for each."
            )
    sources = []
    for k, tomogram in enumerate(tomograms):
        prepared = PreparedTomogram.prepare(
            tomogram,
            voxel_size_angstrom=options.voxel_size_angstrom,
            normalisation=options.normalisation,
        )
        mask = None if membranes is None else membranes[k]
        membrane = None if mask is None else prepared.mask_from_tomogram(mask, 0, prepared.shape[0])
        targets = others = np.zeros((0, 3))
        if picks is not None:
            chosen = picks[k]
            # Picks may come from another binning of the same volume: both are centred at voxel centres.
            factor = chosen.voxel_size_angstrom / tomogram.voxel_size_angstrom
            centre = (np.asarray(chosen.centre_zyx, np.float64) + 0.5) * factor - 0.5
            on_grid = prepared.from_tomogram(centre)
            inside = np.all((on_grid > -1) & (on_grid < np.array(prepared.shape)), axis=1)
            if not inside.all():
                wrong = chosen.centre_zyx[~inside][0].tolist()
                raise InputError(
                    f"{(~inside).sum()} of {len(chosen)} picks lie outside {tomogram.name} "
                    f"(shape {tomogram.shape}), for example (z, y, x) = {wrong}; check their "
                    "voxel size and axis order."
                )
            is_target = chosen.kind == "t3ss"
            targets, others = on_grid[is_target], on_grid[~is_target]
        sources.append(TrainingTomogram(prepared, membrane, targets, others, 0, prepared.shape[0]))
    return sources


def split_tomograms(
    sources: list[TrainingTomogram], options: TrainOptions
) -> tuple[list[TrainingTomogram], list[TrainingTomogram]]:
    """Training and validation sources; whole tomograms, or the last slices of a single one, with a T3SS.

    Tomograms without any picked T3SS stay in training when others could be held out.
    """
    fraction = options.validation_fraction
    if len(sources) == 1:
        only = sources[0]
        cut = min(only.z1 - 1, max(1, round(only.z1 * (1 - fraction))))
        if len(only.targets_zyx):
            # With few picks, the last of them may lie before those slices; it is the one to validate with.
            cut = min(cut, max(1, int(only.targets_zyx[:, 0].max())))
        if only.z1 < 2:
            raise InputError(
                "One tomogram of one slice cannot be both trained on and held out; give more slices."
            )
        return [replace(only, z1=cut)], [replace(only, z0=cut)]
    count = min(len(sources) - 1, max(1, round(fraction * len(sources))))
    order = np.random.default_rng([options.seed, 1]).permutation(len(sources)).tolist()
    # A stable sort: those with something to find come first, in random order.
    order.sort(key=lambda k: len(sources[k].targets_zyx) == 0)
    held = set(order[:count])
    return (
        [s for k, s in enumerate(sources) if k not in held],
        [s for k, s in enumerate(sources) if k in held],
    )
