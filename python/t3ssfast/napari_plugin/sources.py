"""Where the widgets take a tomogram, its membrane and its candidates from: results, or layers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import Candidates
from t3ssfast.curation.results import Results, open_tomogram_of
from t3ssfast.detection.orient import orient
from t3ssfast.errors import InputError
from t3ssfast.tomogram import Tomogram

__all__ = ["Source", "axis_at", "source_of_arrays", "source_of_results"]


@dataclass(frozen=True)
class Source:
    """One tomogram with its candidates; what is large is opened when it is asked for.

    Parameters
    ----------
    candidates
        In voxels of the tomogram.
    results
        The folder that they are from; None where they come from layers.
    contrast_sign
        1 where protein is dark, -1 where it is bright.
    """

    candidates: Candidates
    results: Results | None = None
    contrast_sign: int = 1
    given_tomogram: Tomogram | None = field(default=None, repr=False)
    given_membrane: npt.NDArray[Any] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Name of the tomogram."""
        return self.candidates.tomogram_name

    @cached_property
    def tomogram(self) -> Tomogram:
        """The tomogram, memory-mapped.

        Raises
        ------
        ReadError, InputError
            If it is not found.
        """
        if self.given_tomogram is not None:
            return self.given_tomogram
        if self.results is None:
            raise InputError(f"{self.name}: the tomogram is not open; open its file.")
        return open_tomogram_of(self.results)

    @cached_property
    def membrane(self) -> npt.NDArray[Any]:
        """The (z, y, x) membrane mask of the tomogram.

        Raises
        ------
        ReadError, InputError
            If there is none.
        """
        mask = self.given_membrane
        if mask is None and self.results is not None:
            mask = self.results.read_membrane(self.tomogram)
        if mask is None:
            raise InputError(f"{self.name}: there is no membrane; open its mask as a Labels layer.")
        return mask


def source_of_results(results: Results) -> Source:
    """Return the source of a folder of results."""
    return Source(results.candidates, results, results.contrast_sign)


def source_of_arrays(
    candidates: Candidates,
    tomogram: Tomogram | None,
    membrane: npt.NDArray[Any] | None,
    contrast_sign: int = 1,
) -> Source:
    """Return the source of layers; a membrane of another shape than the tomogram is left out."""
    if tomogram is not None:
        scale = candidates.voxel_size_angstrom / tomogram.voxel_size_angstrom
        candidates = replace(
            candidates,
            centre_zyx=candidates.centre_zyx * np.float32(scale),
            voxel_size_angstrom=tomogram.voxel_size_angstrom,
            tomogram_shape=tomogram.shape,
        )
        if membrane is not None and membrane.shape != tomogram.shape:
            membrane = None
    return Source(candidates, None, contrast_sign, tomogram, membrane)


def axis_at(source: Source, centre_zyx: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Return the (3,) axis of a particle at a position in voxels: the membrane's normal, out of the cell.

    Raises
    ------
    InputError
        If the position is outside of the tomogram, or there is no membrane.
    """
    centre = np.asarray(centre_zyx, np.float64).reshape(3)
    shape = np.array(source.membrane.shape)
    if ((centre < -0.5) | (centre > shape - 0.5)).any():
        place = ", ".join(f"{value:.0f}" for value in centre)
        raise InputError(f"{source.name}: ({place}) is outside of the tomogram; click inside of it.")
    size = source.candidates.voxel_size_angstrom
    return np.asarray(orient(source.membrane, centre, voxel_size_angstrom=size)[0], np.float32)
