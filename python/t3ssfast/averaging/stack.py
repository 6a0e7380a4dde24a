"""The boxes of all particles, with the poses they came with."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.transform import Rotation

from t3ssfast.averaging.config import AverageConfig
from t3ssfast.averaging.extract import extract, place
from t3ssfast.candidates import Candidates
from t3ssfast.errors import InputError
from t3ssfast.io.particles.poses import normal_and_rot, rotation_of
from t3ssfast.tomogram import Tomogram

__all__ = ["ParticleStack", "zyx_matrices"]

Tensor = torch.Tensor


def zyx_matrices(rotation: Rotation, device: torch.device) -> Tensor:
    """(n, 3, 3) float32 matrices acting on zyx vectors, of n rotations of x, y, z."""
    flipped = np.ascontiguousarray(rotation.as_matrix()[..., ::-1, ::-1])
    return torch.as_tensor(flipped, dtype=torch.float32, device=device)


class ParticleStack:
    """Boxes about candidates of one or more tomograms, by one running number.

    Parameters
    ----------
    tomograms, candidates
        One entry of each for each tomogram.
    box
        Edge of the boxes in voxels.
    config
        Contrast, and how much memory the boxes may take.
    device
        Where the boxes go.

    Attributes
    ----------
    rotation
        (n, 3, 3) prior rotations, object to tomogram, zyx.
    offset
        (n, 3) where the particle is, from voxel box // 2 of its box, zyx voxels.
    checksum
        Of the boxes' values.
    """

    def __init__(
        self,
        tomograms: Sequence[Tomogram],
        candidates: Sequence[Candidates],
        box: int,
        config: AverageConfig,
        device: torch.device,
    ) -> None:
        self.tomograms, self.candidates = tomograms, candidates
        self.size, self.config, self.device = box, config, device
        self.voxel_size_angstrom = tomograms[0].voxel_size_angstrom
        self.owner = np.repeat(np.arange(len(candidates)), [len(some) for some in candidates])
        self.row = np.concatenate([np.arange(len(some)) for some in candidates])
        if len(self.owner) < 2:
            raise InputError(
                f"{len(self.owner)} candidates were given; averaging in two halves needs at least 2."
            )
        filled = [some for some in candidates if len(some)]
        rotations = Rotation.concatenate([rotation_of(some) for some in filled])
        self.rotation = zyx_matrices(rotations, device)
        offsets = [
            place(tomogram, some, box, voxel_size_angstrom=self.voxel_size_angstrom).offset_zyx
            for tomogram, some in zip(tomograms, candidates, strict=True)
        ]
        self.offset = torch.as_tensor(np.concatenate(offsets), dtype=torch.float32, device=device)
        self._kept: dict[int, Tensor] = {}
        self._room = config.memory_budget_bytes // (4 * box**3)
        self.checksum = 0

    def __len__(self) -> int:
        return len(self.owner)

    def box(self, index: int) -> Tensor:
        """(n, n, n) box of one particle, protein bright, mean 0, standard deviation 1."""
        if index in self._kept:
            return self._kept[index]
        tomogram, some = self.tomograms[self.owner[index]], self.candidates[self.owner[index]]
        cut = extract(
            tomogram,
            some[[self.row[index]]],
            self.size,
            voxel_size_angstrom=self.voxel_size_angstrom,
            contrast=self.config.contrast,
        )[0]
        found = torch.from_numpy(cut).to(self.device)
        if len(self._kept) < self._room:
            self._kept[index] = found
        return found

    def add_to_checksum(self, index: int) -> None:
        """Take a particle's box into `checksum`."""
        self.checksum = zlib.crc32(self.box(index).cpu().numpy().tobytes(), self.checksum)

    def refined(self, rotation: Tensor, offset: Tensor, score: npt.NDArray[np.float64]) -> list[Candidates]:
        """The candidates with new poses and scores, one entry a tomogram."""
        matrices = rotation.cpu().double().numpy()[..., ::-1, ::-1]
        normal, spin = normal_and_rot(Rotation.from_matrix(matrices))
        moved = (offset - self.offset).cpu().double().numpy() * self.voxel_size_angstrom
        found = []
        for number, some in enumerate(self.candidates):
            rows = np.flatnonzero(self.owner == number)
            found.append(
                replace(
                    some,
                    centre_zyx=(some.centre_zyx + moved[rows] / some.voxel_size_angstrom).astype(np.float32),
                    score=np.clip(score[rows], 0, 1).astype(np.float32),
                    normal_zyx=normal[rows],
                    rot_degrees=spin[rows].astype(np.float32),
                )
            )
        return found
