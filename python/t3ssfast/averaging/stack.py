"""The subtomograms of all particles and their prior poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.transform import Rotation

from t3ssfast.averaging.config import AverageConfig
from t3ssfast.averaging.extract import box_positions, extract
from t3ssfast.candidates import Candidates
from t3ssfast.errors import InputError
from t3ssfast.io.particles.poses import normal_and_rot, rotation_of
from t3ssfast.tomogram import Tomogram

__all__ = ["ParticleStack", "zyx_matrices"]

Tensor = torch.Tensor


def zyx_matrices(rotation: Rotation, device: torch.device) -> Tensor:
    """Convert n rotations of x, y, z to (n, 3, 3) float32 matrices acting on zyx vectors."""
    flipped = np.ascontiguousarray(rotation.as_matrix()[..., ::-1, ::-1])
    return torch.as_tensor(flipped, dtype=torch.float32, device=device)


class ParticleStack:
    """The particles of one or more tomograms, numbered consecutively. `box` is in voxels.

    `rotation` (n, 3, 3) and `offset` (n, 3) are the prior poses, as in `State`, and `tomogram_index` (n,) the
    tomograms of the particles.
    """

    def __init__(
        self,
        tomograms: Sequence[Tomogram],
        candidates: Sequence[Candidates],
        box: int,
        config: AverageConfig,
        device: torch.device,
    ) -> None:
        self.candidates, self.size, self.device = candidates, box, device
        self.voxel_size_angstrom = tomograms[0].voxel_size_angstrom
        self.tomogram_index = np.repeat(np.arange(len(candidates)), [len(some) for some in candidates])
        if len(self) < 2:
            raise InputError(f"{len(self)} candidates were given; two half sets need at least 2.")
        given = config.contrast
        self._tomograms = tomograms
        self._contrasts = [given] * len(tomograms) if isinstance(given, str) else list(given)
        self._row = np.concatenate([np.arange(len(some)) for some in candidates])
        rotations = Rotation.concatenate([rotation_of(some) for some in candidates if len(some)])
        self.rotation = zyx_matrices(rotations, device)
        offsets = [
            box_positions(tomogram, some, box, voxel_size_angstrom=self.voxel_size_angstrom).offset_zyx
            for tomogram, some in zip(tomograms, candidates, strict=True)
        ]
        self.offset = torch.as_tensor(np.concatenate(offsets), dtype=torch.float32, device=device)
        self._boxes: dict[int, Tensor] = {}
        self._max_boxes = config.memory_budget_bytes // (4 * box**3)

    def __len__(self) -> int:
        return len(self.tomogram_index)

    def box(self, index: int) -> Tensor:
        """Return the (n, n, n) box of a particle: protein bright, mean 0, standard deviation 1."""
        if index in self._boxes:
            return self._boxes[index]
        number = self.tomogram_index[index]
        tomogram, candidate = self._tomograms[number], self.candidates[number][[self._row[index]]]
        size, contrast = self.voxel_size_angstrom, self._contrasts[number]
        boxes = extract(tomogram, candidate, self.size, voxel_size_angstrom=size, contrast=contrast)
        box = torch.from_numpy(boxes[0]).to(self.device)
        if len(self._boxes) < self._max_boxes:
            self._boxes[index] = box
        return box

    def refined(
        self, rotation: npt.NDArray[Any], offset: npt.NDArray[Any], score: npt.NDArray[Any]
    ) -> list[Candidates]:
        """Return the candidates of each tomogram with new poses and scores."""
        matrices = rotation.astype(np.float64)[..., ::-1, ::-1]
        normal, rot = normal_and_rot(Rotation.from_matrix(matrices))
        moved = (offset - self.offset.cpu().numpy()).astype(np.float64) * self.voxel_size_angstrom
        refined = []
        for number, some in enumerate(self.candidates):
            rows = np.flatnonzero(self.tomogram_index == number)
            centre = (some.centre_zyx + moved[rows] / some.voxel_size_angstrom).astype(np.float32)
            scores = np.clip(score[rows], 0, 1).astype(np.float32)
            rots = rot[rows].astype(np.float32)
            refined.append(
                replace(some, centre_zyx=centre, score=scores, normal_zyx=normal[rows], rot_degrees=rots)
            )
        return refined
