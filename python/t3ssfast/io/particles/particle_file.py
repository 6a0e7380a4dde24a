"""A particle file and what its reader is told about the tomogram; checks that all formats share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ReadError, VoxelSizeError
from t3ssfast.io import PLACEHOLDER_VOXEL_SIZE_ANGSTROM, display_path
from t3ssfast.tomogram import check_voxel_size

__all__ = ["ParticleFile", "numbers", "split_by_tomogram"]

# A hundred million coordinates are no list of particles; libraries would take many times the memory.
MAX_FILE_BYTES = 256 << 20


@dataclass(frozen=True)
class ParticleFile:
    """A particle file to read.

    Parameters
    ----------
    path
        The file.
    voxel_size_angstrom, tomogram_shape
        Of the tomogram whose voxels the centres shall refer to; None: as the file says.
    tomograms
        A RELION tomograms.star, for files that tell positions from the middle of the tomogram.
    """

    path: Path
    voxel_size_angstrom: float | None = None
    tomogram_shape: tuple[int, int, int] | None = None
    tomograms: Path | None = None

    def __post_init__(self) -> None:
        if self.voxel_size_angstrom is not None:
            size = check_voxel_size(self.voxel_size_angstrom, source="voxel_size_angstrom")
            object.__setattr__(self, "voxel_size_angstrom", size)

    @property
    def name(self) -> str:
        """The path as it appears in messages."""
        return display_path(self.path)

    def read_bytes(self) -> bytes:
        """The whole file, or ReadError if it cannot be a list of particles."""
        check_readable(self.path)
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise ReadError(
                f"{self.name} cannot be read: {error.strerror}; check its permissions."
            ) from error

    def read_text(self) -> str:
        """The whole file as UTF-8 text, or ReadError."""
        try:
            return self.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ReadError(f"{self.name} is not a text file; check what it is.") from error

    def voxel_size(self, in_file: float | None) -> float:
        """The voxel size given, else the one in the file; VoxelSizeError where there is neither."""
        if self.voxel_size_angstrom is not None:
            return self.voxel_size_angstrom
        if in_file is None or not in_file > 0:
            raise VoxelSizeError(
                f"{self.name} does not tell the voxel size of its tomogram; give it as voxel_size_angstrom "
                "(--voxel-size)."
            )
        return check_voxel_size(in_file, source=self.name)

    def grid(self, in_file: float | None) -> tuple[float, float]:
        """Voxel size of the centres to return, and what a voxel coordinate of the file is multiplied by.

        A size of 1 A in a file stands for an unknown one, as in the headers of tomograms.
        """
        if in_file is not None and not (
            in_file > 0 and abs(in_file - PLACEHOLDER_VOXEL_SIZE_ANGSTROM) > 1e-4
        ):
            in_file = None
        voxel_size = self.voxel_size(in_file)
        if in_file is None:
            return voxel_size, 1.0
        return voxel_size, check_voxel_size(in_file, source=self.name) / voxel_size


def check_readable(path: Path) -> None:
    """ReadError unless `path` is a regular file of a size that particle files have."""
    try:
        size = os.stat(path).st_size
    except FileNotFoundError:
        raise ReadError(f"There is no file {display_path(path)}; check the name.") from None
    except (OSError, ValueError) as error:
        raise ReadError(f"{display_path(path)} cannot be read: {error}; check the name.") from error
    if not path.is_file():
        raise ReadError(f"{display_path(path)} is not a file; give a file of candidates.")
    if size > MAX_FILE_BYTES:
        raise ReadError(
            f"{display_path(path)} is {size / 2**20:.0f} MiB long, too long for a list of particles "
            f"(at most {MAX_FILE_BYTES >> 20} MiB); check what it is."
        )


def numbers(source: ParticleFile, columns: Sequence[Any]) -> npt.NDArray[np.float64]:
    """Columns as an (n, k) array of finite numbers, or ReadError."""
    try:
        array = np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)
    except (TypeError, ValueError) as error:
        raise ReadError(f"{source.name}: a coordinate, angle or score is not a number; repair it.") from error
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0]) + 1
        raise ReadError(f"{source.name}: particle {row} has a value that is not finite; remove it.")
    # Beyond this float32 centres would be off by more than 0.01 voxel; no tomogram is that large.
    if np.abs(array).max(initial=0.0) > 1e7:
        raise ReadError(f"{source.name}: a value is larger than 10 million; it is no list of particles.")
    return array


def split_by_tomogram(
    names: Sequence[str], whole: Candidates, others: dict[str, dict[str, Any]]
) -> list[Candidates]:
    """One `Candidates` for each name, in order of first appearance.

    Parameters
    ----------
    names
        The tomogram of each candidate.
    whole
        All candidates together.
    others
        By tomogram: fields of `Candidates` that differ between tomograms. Those without candidates come
        back empty.
    """
    from dataclasses import replace

    array = np.asarray(names, dtype=object)
    order = list(dict.fromkeys([*names, *others]))
    return [
        replace(whole[np.flatnonzero(array == name)], tomogram_name=name, **others.get(name, {}))
        for name in order
    ]
