"""Training examples of the verifier: boxes around candidates, and cylindrical sections drawn from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor

from t3ssfast.candidates import Candidates
from t3ssfast.detection.cylindrical_sections import (
    HeldSlices,
    axis_correction,
    axis_frames,
    box_size,
    cut_boxes,
    cylindrical_sections,
    rotate_frames,
)
from t3ssfast.training.augment import augment_values
from t3ssfast.training.data import TrainingTomogram
from t3ssfast.training.loop import Batch
from t3ssfast.training.options import VerifierOptions

__all__ = ["BoxPool", "Boxes"]

Float64Array = npt.NDArray[np.float64]
# Centres and unit axes on the model's grid, each (n, 3), zyx.
Poses = tuple[Float64Array, Float64Array]

# Boxes resampled at a time.
CHUNK = 64
# Fraction of the boxes of which a part is zeroed, as beyond the edge of a tomogram.
CUT_FRACTION = 0.15
# Knots along and across a section at which the random gain is drawn; bilinear in between.
GAIN_KNOTS = (7, 4)


@dataclass(frozen=True)
class Boxes:
    """Boxes around candidates, in voxels of the model's grid."""

    values: npt.NDArray[np.float16]  # (n, side, side, side)
    centre: Float64Array  # (n, 3), relative to the middle voxel
    axis: Float64Array  # (n, 3)
    offset: Float64Array  # (n, 3), true centre relative to the candidate's
    true_axis: Float64Array  # (n, 3)
    jitter: Float64Array  # (n,) factor of the random pose errors
    particle: Float64Array  # (n, 4), number of the tomogram and true centre
    kind: npt.NDArray[np.int64]  # (n,), index into the options' kinds; of a false candidate 0

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: npt.NDArray[Any]) -> Boxes:
        return Boxes(*(getattr(self, f.name)[index] for f in fields(self)))

    @classmethod
    def concatenate(cls, parts: Sequence[Boxes]) -> Boxes:
        """Join boxes in order."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    @classmethod
    def cut(
        cls,
        number: int,
        tomogram: TrainingTomogram,
        side: int,
        poses: Poses,
        true: Poses,
        jitter: float,
        kind: npt.NDArray[np.int64] | None = None,
    ) -> Boxes:
        """Cut a box around each pose inside the range of slices of the tomogram of a number."""
        inside = tomogram.in_slices(poses[0])
        (centre, axis), (true_centre, true_axis) = ([a[inside] for a in pose] for pose in (poses, true))
        middle = np.floor(centre + 0.5)
        values = np.empty((len(middle), side, side, side), np.float16)
        for chosen, boxes in cut_boxes(HeldSlices(tomogram.prepared), middle.astype(np.int64), side):
            values[chosen] = boxes.numpy()
        offset, jitters = true_centre - centre, np.full(len(middle), jitter)
        particle = np.column_stack([np.full(len(middle), number), true_centre])
        kinds = np.zeros(len(middle), np.int64) if kind is None else kind[inside]
        return cls(values, centre - middle, axis, offset, true_axis, jitters, particle, kinds)


@dataclass
class BoxPool:
    """Boxes to draw from: particles, both as picked and as found, and false candidates."""

    true: Boxes
    false: Boxes

    @classmethod
    def from_candidates(
        cls,
        number: int,
        tomogram: TrainingTomogram,
        picks: Candidates,
        candidates: Candidates,
        options: VerifierOptions,
    ) -> BoxPool:
        """Label candidates by their distance to particles, add the picks, and cut the boxes.

        Particles are the picks of the options' kinds; picks of other kinds are false candidates.
        """
        best = candidates.sorted_by_score()
        centre, axis = tomogram.prepared.from_tomogram(best.centre_zyx), best.normal_zyx.astype(np.float64)
        nm = options.voxel_size_angstrom / 10
        kind = _kind_index(picks, options.kinds)
        is_particle = kind >= 0
        known = tomogram.picks_on_grid(picks)
        found, reach = (centre, axis), options.hit_distance_nm / nm
        picked, chosen = _with_axes(known[is_particle], picks[is_particle], found, reach)
        others, _ = _with_axes(known[~is_particle], picks[~is_particle], found, reach)
        # Distances from no point are infinite.
        distance, nearest = map(np.asarray, cKDTree(known[is_particle]).query(centre))
        hit = distance * nm <= options.hit_distance_nm
        true_axis = axis[hit]
        if _have_axes(picks):
            true_axis = picks.normal_zyx[is_particle].astype(np.float64)[nearest[hit]]
        far = np.flatnonzero(distance * nm > options.negative_distance_nm)[: options.negatives_per_tomogram]
        false = (np.concatenate([centre[far], others[0]]), np.concatenate([axis[far], others[1]]))
        cut = partial(Boxes.cut, number, tomogram, box_size(options.height_px))
        kind, hits = kind[is_particle], nearest[hit]
        as_found = cut((centre[hit], axis[hit]), (known[is_particle][hits], true_axis), 0.5, kind[hits])
        as_picked = cut(picked, picked, 1.0, kind[chosen])
        return cls(Boxes.concatenate([as_picked, as_found]), cut(false, false, 0.5))

    @classmethod
    def concatenate(cls, pools: Sequence[BoxPool]) -> BoxPool:
        """Join pools in order."""
        return cls(Boxes.concatenate([p.true for p in pools]), Boxes.concatenate([p.false for p in pools]))

    def split(self, options: VerifierOptions) -> tuple[BoxPool, BoxPool]:
        """Split particles at random into training and validation, at least one of each label."""
        rng = np.random.default_rng([options.seed, 13])
        kept, held_out = [], []
        for boxes in (self.true, self.false):
            particles, index = np.unique(boxes.particle, axis=0, return_inverse=True)
            order = rng.permutation(len(particles))
            count = min(len(particles), max(1, round(options.validation_fraction * len(particles))))
            chosen = np.isin(index.reshape(-1), order[:count])
            held_out.append(boxes[chosen])
            kept.append(boxes[~chosen])
        return BoxPool(*kept), BoxPool(*held_out)

    def draw(self, rng: np.random.Generator, count: int, options: VerifierOptions) -> Batch:
        """Draw augmented sections (N, azimuths, height, height / 2), and targets (N, kinds + 5).

        A target is 1 for the particle's kind, and its offset and axis correction as a verifier outputs them.
        """
        trues = max(1, round(options.positive_share * count))
        drawn = Boxes.concatenate(
            [
                self.true[self._of_every_kind(rng, trues, len(options.kinds))],
                self.false[rng.integers(len(self.false), size=count - trues)],
            ]
        )
        jitter = drawn.jitter[:, None]
        original = torch.from_numpy(drawn.values)
        # Values are augmented as the microscope recorded them, before the axis is aligned.
        values = augment_values(original.float(), rng, options.augment)
        values[(original == 0) | _random_cut(rng, count, values.shape[-1])] = 0
        shift = rng.normal(0, options.jitter_nm * 10 / options.voxel_size_angstrom, (count, 3)) * jitter
        far = rng.random((count, 1)) < options.far_share
        far_tilt = rng.uniform(0, options.far_degrees, (count, 1))
        near_tilt = rng.uniform(0, options.tilt_degrees, (count, 1)) * jitter
        tilt = np.radians(np.where(far, far_tilt, near_tilt))
        axis, first, second = axis_frames(drawn.axis).transpose(1, 0, 2)
        angle = rng.uniform(0, 2 * np.pi, count)[:, None]
        frames = axis_frames(axis + np.tan(tilt) * (np.cos(angle) * first + np.sin(angle) * second))
        frames = rotate_frames(frames, rng.uniform(0, 2 * np.pi, count))
        frames[rng.random(count) < 0.5, 2] *= -1
        # An image enlarged by a factor samples the box in steps shorter by that factor.
        low, high = map(math.log, options.augment.scale)
        step = np.exp(-rng.uniform(low, high, (count, 1)))
        low, high = map(math.log, options.stretch)
        step = step * np.exp(-rng.uniform(low, high, (count, 1)) * [0.5, -0.5, -0.5])
        scaled = frames * step[:, :, None]
        planes = cylindrical_sections(values, drawn.centre + shift, scaled, options.height_px)
        planes = planes * _random_gain(rng, count, options)
        offset = np.einsum("nij,nj->ni", frames, drawn.offset - shift) / step
        correction = axis_correction(drawn.true_axis, scaled)
        return planes, _targets(drawn.kind[:trues], options, offset, correction).float()

    def _of_every_kind(self, rng: np.random.Generator, count: int, kinds: int) -> npt.NDArray[np.int64]:
        """Draw particles, as many of each kind as far as there are any."""
        if kinds == 1:
            return rng.integers(len(self.true), size=count)
        of_kind = [np.flatnonzero(self.true.kind == k) for k in range(kinds)]
        of_kind = [index for index in of_kind if len(index)]
        shares = np.diff(np.linspace(0, count, len(of_kind) + 1).round().astype(int)).tolist()
        drawn = [index[rng.integers(len(index), size=n)] for index, n in zip(of_kind, shares, strict=True)]
        return np.concatenate(drawn)

    def all_sections(self, options: VerifierOptions) -> Batch:
        """Return sections and targets, as `draw`, of all boxes without augmentation."""
        boxes = Boxes.concatenate([self.true, self.false])
        frames = axis_frames(boxes.axis)
        planes = []
        for a in range(0, len(boxes), CHUNK):
            values = torch.from_numpy(boxes.values[a : a + CHUNK]).float()
            centre = boxes.centre[a : a + CHUNK]
            planes.append(cylindrical_sections(values, centre, frames[a : a + CHUNK], options.height_px))
        offset = np.einsum("nij,nj->ni", frames, boxes.offset)
        correction = axis_correction(boxes.true_axis, frames)
        return torch.cat(planes), _targets(self.true.kind, options, offset, correction)


def _kind_index(picks: Candidates, kinds: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the index of each pick's kind; -1: none of them."""
    index = np.full(len(picks), -1, np.int64)
    for number, kind in enumerate(kinds):
        index[picks.kind == kind] = number
    return index


def _with_axes(
    centre: Float64Array, picks: Candidates, found: Poses, reach: float
) -> tuple[Poses, npt.NDArray[np.bool_]]:
    """Return picks with their axes, and which those are.

    Picks without axes take those of the nearest candidate within reach.
    """
    if len(picks) == 0 or _have_axes(picks):
        return (centre, picks.normal_zyx.astype(np.float64)), np.ones(len(picks), bool)
    distance, nearest = map(np.asarray, cKDTree(found[0]).query(centre))
    near = distance <= reach
    return (centre[near], found[1][nearest[near]]), near


def _have_axes(picks: Candidates) -> bool:
    """Return whether picks have axes; without, all are along z."""
    return bool((picks.normal_zyx != [1, 0, 0]).any())


def _targets(
    kind: npt.NDArray[np.int64], options: VerifierOptions, offset: Float64Array, correction: Float64Array
) -> Tensor:
    """Return targets (n, kinds + 5) of examples of which the first ones are particles of the given kinds."""
    label = np.zeros((len(offset), len(options.kinds)))
    label[np.arange(len(kind)), kind] = 1
    targets = np.column_stack([label, offset, correction])
    targets[len(kind) :] = 0
    return torch.from_numpy(targets)


def _random_cut(rng: np.random.Generator, count: int, side: int) -> Tensor:
    """Return masks (n, side, side, side) of a random part of some boxes, cut off parallel to a face."""
    beyond = torch.zeros((count, side, side, side), dtype=torch.bool)
    for k in np.flatnonzero(rng.random(count) < CUT_FRACTION):
        left = side // 2 + int(rng.integers(1, side // 3))
        part = slice(left, None) if rng.random() < 0.5 else slice(0, side - left)
        beyond[k].movedim(int(rng.integers(3)), 0)[part] = True
    return beyond


def _random_gain(rng: np.random.Generator, count: int, options: VerifierOptions) -> Tensor:
    """Return smooth random factors (n, 1, height, height / 2), the same at every azimuth."""
    knots = rng.normal(0, options.profile, (count, 1, *GAIN_KNOTS)).astype(np.float32)
    size = (options.height_px, options.height_px // 2)
    return F.interpolate(torch.from_numpy(knots), size, mode="bilinear", align_corners=True).exp()
