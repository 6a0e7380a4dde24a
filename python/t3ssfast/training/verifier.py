"""Training of the network that looks again at candidates: true ones, and those that were false."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor, nn

from t3ssfast.candidates import Candidates
from t3ssfast.detection.cylindrical_sections import (
    axis_correction,
    axis_frames,
    box_size,
    cut_boxes,
    cylindrical_sections,
    rotate_frames,
)
from t3ssfast.errors import InputError
from t3ssfast.models import (
    VERIFIER_ANSWERS,
    AxialNet,
    LoadedModel,
    ModelMetadata,
    check_device,
    load_model,
    save_model,
)
from t3ssfast.tomogram import Tomogram
from t3ssfast.training.augment import augment_values
from t3ssfast.training.classifier import average_precision
from t3ssfast.training.data import TrainingTomogram, prepare_tomograms, split_tomograms
from t3ssfast.training.distributed import World, join_world
from t3ssfast.training.loop import Run, optimise, take_weights
from t3ssfast.training.options import VerifierOptions, make_options

__all__ = ["train_verifier"]

Float64Array = npt.NDArray[np.float64]

BATCH = 64
# So many of the boxes are shown as if the tomogram ended nearby.
CUT_SHARE = 0.15
# Along and across half-planes, where their gain is drawn; linear in between.
GAIN_KNOTS = (7, 4)

# Fewer tomograms than these are not held out whole.
FEW_TOMOGRAMS = 4


def train_verifier(
    tomograms: Sequence[Tomogram],
    picks: Sequence[Candidates],
    candidates: Sequence[Candidates],
    out: str | os.PathLike[str] = "verifier.pt",
    *,
    start: str | os.PathLike[str] | LoadedModel | None = None,
    device: str | torch.device = "cpu",
    resume: bool = False,
    progress: bool = True,
    **options: Any,
) -> Path:
    """Train a network that tells T3SS from what a classifier takes for them, by the whole of a candidate.

    Parameters
    ----------
    tomograms
        Protein dark; any voxel size.
    picks
        All T3SS of each tomogram, at the middle of the base, with their axes out of the cell; picks of
        another kind are taught as what they are not. Where a tomogram's picks have no poses (all axes along
        z), they take those of the candidates beside them, and what no candidate lies beside is not used.
    candidates
        Of each tomogram, what a detection finds in it without a verifier, down to low scores. Those beside a
        T3SS are taught as such, with the errors of their place and axis; those far from every T3SS are the
        false ones.
    out
        The TorchScript file to write; ``<stem>.training.csv`` and ``.png`` come beside it.
    start
        A verifier to go on from, with the grid, height, widths and normalisation it has; None begins anew.
    device
        "cpu", "cuda", "cuda:1" or "auto".
    resume
        Go on from the checkpoint of an interrupted run, if there is one.
    progress
        Show a bar on a terminal.
    **options
        Of `VerifierOptions`.

    Returns
    -------
    Path of the file.

    Raises
    ------
    InputError
        Nothing to train on, no T3SS or nothing false in the training or the held-out tomograms, or picks
        outside their tomogram.
    ConfigError
        An option that does not exist or cannot be.
    ModelError
        The verifier to start from is none of these widths.
    """
    begun = None if start is None else load_model(start, model_kind="verifier")
    if begun is not None:
        options = {**_options_of(begun), **options}
    chosen = make_options(VerifierOptions, options)
    if len(candidates) != len(tomograms):
        raise InputError(
            f"There are candidates of {len(candidates)} tomograms for {len(tomograms)}; give those of each."
        )
    with join_world(check_device(device)) as world:
        return _train(
            *(tomograms, picks, candidates, Path(out), chosen, begun, world), resume=resume, progress=progress
        )


def _options_of(model: LoadedModel) -> dict[str, Any]:
    """Options that must be those of the model that a training starts from."""
    said, recipe = model.metadata, model.metadata.recipe
    given = {"channels": tuple(recipe["channels"])} if "channels" in recipe else {}
    given |= {"hidden": recipe["hidden"]} if "hidden" in recipe else {}
    return given | {
        "height_px": said.window_px,
        "voxel_size_angstrom": said.voxel_size_angstrom,
        "normalisation": said.normalisation,
    }


def _train(
    tomograms: Sequence[Tomogram],
    picks: Sequence[Candidates],
    candidates: Sequence[Candidates],
    path: Path,
    chosen: VerifierOptions,
    begun: LoadedModel | None,
    world: World,
    *,
    resume: bool,
    progress: bool,
) -> Path:
    where, share = world.device, replace(chosen, batch=world.share(chosen.batch))
    sources = prepare_tomograms(tomograms, None, picks, chosen)
    shown = [_Shown.of(*each, chosen) for each in zip(sources, picks, candidates, strict=True)]
    pools = _split(sources, shown, chosen)
    for name, pool in zip(("training", "validation"), pools, strict=True):
        for what, boxes in (("T3SS", pool.true), ("false candidate", pool.false)):
            if not len(boxes):
                raise InputError(
                    f"There is no {what} in the {name} tomograms; give more tomograms, candidates down to "
                    "lower scores, picks with poses, or another validation_fraction."
                )
    data: list[Any] = [
        (t.name, t.shape, t.voxel_size_angstrom, len(p), len(c))
        for t, p, c in zip(tomograms, picks, candidates, strict=True)
    ]
    if begun is not None:
        data.append(("start", begun.sha256))
    run = Run(path, chosen, data, resume=resume, world=world)
    torch.manual_seed(chosen.seed)
    module = AxialNet(chosen.channels, chosen.hidden, chosen.height_px).to(where)
    # Convolutions of few channels are twice as fast where these lie side by side.
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if begun is not None:
        take_weights(module, begun)
    planes, target = pools[1].as_they_are(chosen)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        return pools[0].draw(np.random.default_rng([chosen.seed, 12, step, *world.stream]), share)

    def loss(answer: Tensor, target: Tensor) -> Tensor:
        true = target[:, 0] > 0
        missed = F.huber_loss(answer[true, 1:4], target[true, 1:4])
        askew = F.huber_loss(answer[true, 4:], target[true, 4:])
        unsure = F.binary_cross_entropy_with_logits(answer[:, 0], target[:, 0])
        return unsure + chosen.offset_weight * missed + chosen.lean_weight * askew

    def validate(module: nn.Module) -> dict[str, float]:
        return _figures(module, planes, target, where)

    figures = optimise(
        module,
        run,
        batch=batch,
        loss=loss,
        validate=validate,
        figure="average_precision",
        device=where,
        progress=progress,
        title="verifier",
        keep_start=begun is not None,
    )
    metadata = ModelMetadata(
        model_kind="verifier",
        voxel_size_angstrom=chosen.voxel_size_angstrom,
        window_px=chosen.height_px,
        window_nm=chosen.height_px * chosen.voxel_size_angstrom / 10.0,
        normalisation=chosen.normalisation,
        classes=VERIFIER_ANSWERS,
        recipe={**chosen.to_dict(), "tomograms": len(tomograms)},
        metrics=figures,
    )
    if world.leads:
        save_model(module, path, metadata)
    run.finish()
    return path


@dataclass(frozen=True)
class _Poses:
    """Where to look at something, and along what: (n, 3) on the model's grid, zyx."""

    centre: Float64Array
    axis: Float64Array

    def __getitem__(self, which: Any) -> _Poses:
        return _Poses(self.centre[which], self.axis[which])

    @classmethod
    def joined(cls, parts: Sequence[_Poses]) -> _Poses:
        return cls(np.concatenate([p.centre for p in parts]), np.concatenate([p.axis for p in parts]))


@dataclass(frozen=True)
class _Shown:
    """What one tomogram has to show: the T3SS as they were picked, as they were found, and what is false."""

    picked: _Poses
    found: _Poses
    true: _Poses  # of the found ones
    false: _Poses

    @classmethod
    def of(
        cls,
        source: TrainingTomogram,
        picks: Candidates,
        candidates: Candidates,
        options: VerifierOptions,
    ) -> _Shown:
        """From the picks and the candidates of a tomogram."""
        best = candidates.sorted_by_score()
        found = _Poses(source.prepared.from_tomogram(best.centre_zyx), best.normal_zyx.astype(np.float64))
        nm = options.voxel_size_angstrom / 10
        target = picks.kind == "t3ss"
        known, others = (
            _posed(centre, picks[which], found, options.hit_distance_nm / nm)
            for centre, which in ((source.targets_zyx, target), (source.others_zyx, ~target))
        )
        distance, nearest = _nearest(source.targets_zyx, found.centre)
        hit = np.flatnonzero(distance * nm <= options.hit_distance_nm)
        whose = picks.normal_zyx[target].astype(np.float64)[nearest[hit]]
        true = _Poses(source.targets_zyx[nearest[hit]], whose if _have_poses(picks) else found.axis[hit])
        false = found[distance * nm > options.negative_distance_nm][: options.negatives_per_tomogram]
        return cls(known, found[hit], true, _Poses.joined([false, others]))

    def within(self, source: TrainingTomogram) -> _Shown:
        """What lies within the slices of a source."""
        hit = source.in_reach(self.found.centre)
        return _Shown(
            self.picked[source.in_reach(self.picked.centre)],
            self.found[hit],
            self.true[hit],
            self.false[source.in_reach(self.false.centre)],
        )


def _posed(centre: Float64Array, picks: Candidates, found: _Poses, reach: float) -> _Poses:
    """Picks with their axes; where none was given, those that have a candidate beside them, with its axis."""
    if len(picks) == 0 or _have_poses(picks):
        return _Poses(centre, picks.normal_zyx.astype(np.float64))
    if len(found.centre) == 0:
        return _Poses(centre[:0], found.axis)
    distance, nearest = _nearest(found.centre, centre)
    near = distance <= reach
    return _Poses(centre[near], found.axis[nearest[near]])


def _have_poses(picks: Candidates) -> bool:
    """Whether axes were given: not all along z."""
    return not np.array_equal(picks.normal_zyx, np.tile([1, 0, 0], (len(picks), 1)))


def _nearest(among: Float64Array, to: Float64Array) -> tuple[Float64Array, npt.NDArray[np.int64]]:
    """Distance from each point to the nearest of some, and which it is; infinite where there are none."""
    if len(among) == 0:
        return np.full(len(to), np.inf), np.zeros(len(to), np.int64)
    distance, index = cKDTree(among).query(to)
    return np.asarray(distance, np.float64), np.asarray(index, np.int64)


def _split(
    sources: list[TrainingTomogram], shown: list[_Shown], options: VerifierOptions
) -> tuple[_Pool, _Pool]:
    """What is trained on, and what is held out: whole tomograms, or single T3SS where there are few."""
    if len(sources) < FEW_TOMOGRAMS:
        return _Pool.collect(sources, shown, options).parted(options)
    known = {id(source.prepared): each for source, each in zip(sources, shown, strict=True)}
    training, held_out = (
        _Pool.collect(part, [known[id(source.prepared)] for source in part], options)
        for part in split_tomograms(sources, options)
    )
    return training, held_out


@dataclass
class _Boxes:
    """Boxes (n, side, side, side) float16; where in its middle voxel to look and along what; the true centre
    from there, in voxels, and the true axis; how much of the jitter each gets; and whose they are: tomogram
    and true centre."""

    values: Tensor
    pose: _Poses
    missed: Float64Array
    true_axis: Float64Array
    jitter: Float64Array
    whose: Float64Array

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, which: npt.NDArray[np.int64]) -> _Boxes:
        return _Boxes(
            self.values[torch.from_numpy(which)],
            self.pose[which],
            self.missed[which],
            self.true_axis[which],
            self.jitter[which],
            self.whose[which],
        )

    @classmethod
    def joined(cls, parts: Sequence[_Boxes]) -> _Boxes:
        return cls(
            torch.cat([p.values for p in parts]),
            _Poses.joined([p.pose for p in parts]),
            np.concatenate([p.missed for p in parts]),
            np.concatenate([p.true_axis for p in parts]),
            np.concatenate([p.jitter for p in parts]),
            np.concatenate([p.whose for p in parts]),
        )

    @classmethod
    def cut(
        cls,
        tomogram: int,
        source: TrainingTomogram,
        pose: _Poses,
        true: _Poses,
        jitter: float,
        side: int,
    ) -> _Boxes:
        """About every pose in the tomogram of a number."""
        middle = np.floor(pose.centre + 0.5)
        values = np.empty((len(middle), side, side, side), np.float16)
        for chosen, boxes in cut_boxes(source.prepared, middle.astype(np.int64), side):
            values[chosen] = boxes
        return cls(
            torch.from_numpy(values),
            _Poses(pose.centre - middle, pose.axis),
            true.centre - pose.centre,
            true.axis,
            np.full(len(middle), jitter),
            np.column_stack([np.full(len(middle), tomogram), true.centre]),
        )


@dataclass
class _Pool:
    """What is drawn from; true ones are there as they were picked, and as they were found."""

    true: _Boxes
    false: _Boxes

    @classmethod
    def collect(cls, sources: list[TrainingTomogram], shown: list[_Shown], options: VerifierOptions) -> _Pool:
        """Everything about the T3SS and the false candidates of the sources."""
        side = box_size(options.height_px)
        true, false = [], []
        for k, (source, everything) in enumerate(zip(sources, shown, strict=True)):
            here = everything.within(source)
            true.append(_Boxes.cut(k, source, here.picked, here.picked, 1.0, side))
            true.append(_Boxes.cut(k, source, here.found, here.true, 0.5, side))
            false.append(_Boxes.cut(k, source, here.false, here.false, 0.5, side))
        return cls(_Boxes.joined(true), _Boxes.joined(false))

    def parted(self, options: VerifierOptions) -> tuple[_Pool, _Pool]:
        """A larger and a smaller part, at random; at least one of each kind in the smaller.

        A T3SS as it was picked and the same as it was found are in the same part.
        """
        rng = np.random.default_rng([options.seed, 13])
        kept, held = [], []
        for boxes in (self.true, self.false):
            each, whose = np.unique(boxes.whose, axis=0, return_inverse=True)
            order = rng.permutation(len(each))
            cut = min(len(each), max(1, round(options.validation_fraction * len(each))))
            in_smaller = np.isin(whose.reshape(-1), order[:cut])
            held.append(boxes[np.flatnonzero(in_smaller)])
            kept.append(boxes[np.flatnonzero(~in_smaller)])
        return _Pool(*kept), _Pool(*held)

    def draw(self, rng: np.random.Generator, options: VerifierOptions) -> tuple[Tensor, Tensor]:
        """Augmented half-planes (N, azimuths, height, height / 2), and (N, 6): whether true, and the offset
        of the centre and the lean of the axis as a verifier answers them."""
        trues = max(1, round(options.positive_share * options.batch))
        drawn = _Boxes.joined(
            [
                self.true[rng.integers(len(self.true), size=trues)],
                self.false[rng.integers(len(self.false), size=options.batch - trues)],
            ]
        )
        count, much = options.batch, drawn.jitter[:, None]
        # Values are changed as the microscope made them, before the axis is laid upright.
        values = augment_values(drawn.values.float(), rng, options.augment)
        values[(drawn.values == 0) | _beyond_a_face(rng, count, values.shape[-1])] = 0
        shift = rng.normal(0, options.jitter_nm * 10 / options.voxel_size_angstrom, (count, 3)) * much
        far = rng.random((count, 1)) < options.far_share
        tilt = np.radians(
            np.where(
                far,
                rng.uniform(0, options.far_degrees, (count, 1)),
                rng.uniform(0, options.tilt_degrees, (count, 1)) * much,
            )
        )
        axis, across, quarter = axis_frames(drawn.pose.axis).transpose(1, 0, 2)
        low, high = options.augment.scale
        frames = axis_frames(
            axis + np.tan(tilt) * _direction(rng.uniform(0, 2 * np.pi, count), across, quarter)
        )
        frames = rotate_frames(frames, rng.uniform(0, 2 * np.pi, count))
        frames[rng.random(count) < 0.5, 2] *= -1
        # Lengths grow by the factor, so a step in the half-planes is a shorter one in the box.
        step = np.exp(-rng.uniform(math.log(low), math.log(high), (count, 1)))
        short, long = options.stretch
        longer = rng.uniform(math.log(short), math.log(long), (count, 1))
        step = step * np.exp(-longer * [0.5, -0.5, -0.5])
        planes = cylindrical_sections(
            values, drawn.pose.centre + shift, frames * step[:, :, None], options.height_px
        ) * _gain(rng, count, options)
        target = np.zeros((count, len(VERIFIER_ANSWERS)), np.float32)
        target[:trues, 0] = 1
        missed = np.einsum("nij,nj->ni", frames, drawn.missed - shift) / step
        target[:trues, 1:4] = missed[:trues]
        target[:trues, 4:] = axis_correction(drawn.true_axis, frames * step[:, :, None])[:trues]
        return planes, torch.from_numpy(target)

    def as_they_are(self, options: VerifierOptions) -> tuple[Tensor, Float64Array]:
        """All of them, half-planes and targets as of `draw`, where they were picked or found."""
        boxes = _Boxes.joined([self.true, self.false])
        frames = axis_frames(boxes.pose.axis)
        planes = [
            cylindrical_sections(
                boxes.values[a : a + BATCH].float(),
                boxes.pose.centre[a : a + BATCH],
                frames[a : a + BATCH],
                options.height_px,
            )
            for a in range(0, len(boxes), BATCH)
        ]
        trues = len(self.true)
        target = np.zeros((len(boxes), len(VERIFIER_ANSWERS)))
        target[:trues, 0] = 1
        target[:trues, 1:4] = np.einsum("nij,nj->ni", frames, boxes.missed)[:trues]
        target[:trues, 4:] = axis_correction(boxes.true_axis, frames)[:trues]
        return torch.cat(planes), target


def _beyond_a_face(rng: np.random.Generator, count: int, side: int) -> Tensor:
    """(n, side, side, side) what lies beyond a face through a part of some boxes, their middles inside."""
    beyond = torch.zeros((count, side, side, side), dtype=torch.bool)
    for k in np.flatnonzero(rng.random(count) < CUT_SHARE):
        left = side // 2 + int(rng.integers(1, side // 3))
        part = slice(left, None) if rng.random() < 0.5 else slice(0, side - left)
        beyond[k].movedim(int(rng.integers(3)), 0)[part] = True
    return beyond


def _gain(rng: np.random.Generator, count: int, options: VerifierOptions) -> Tensor:
    """(n, 1, height, height / 2) random smooth factors, the same all round an axis."""
    knots = rng.normal(0, options.profile, (count, 1, *GAIN_KNOTS)).astype(np.float32)
    size = (options.height_px, options.height_px // 2)
    return F.interpolate(torch.from_numpy(knots), size, mode="bilinear", align_corners=True).exp()


def _direction(angle: Float64Array, first: Float64Array, second: Float64Array) -> Float64Array:
    """(n, 3) directions at angles between two that are square to each other."""
    direction: Float64Array = np.cos(angle)[:, None] * first + np.sin(angle)[:, None] * second
    return direction


def _figures(
    module: nn.Module, planes: Tensor, target: Float64Array, device: torch.device
) -> dict[str, float]:
    """Loss, average precision, precision and recall at 0.5, and by how much centres are missed."""
    answers = torch.cat([module(part.to(device)).float().cpu() for part in torch.split(planes, BATCH)])
    logits, true = answers[:, 0], target[:, 0] == 1
    score = torch.sigmoid(logits).numpy()
    hits = float((score[true] > 0.5).sum())
    wrong = answers.numpy()[true] - target[true]
    return {
        "validation_loss": float(
            F.binary_cross_entropy_with_logits(logits, torch.from_numpy(target[:, 0]).float())
        ),
        "average_precision": average_precision(score, true),
        "precision": hits / max(1.0, float((score > 0.5).sum())),
        "recall": hits / max(1.0, float(true.sum())),
        "median_offset_px": float(np.median(np.linalg.norm(wrong[:, 1:4], axis=1))),
        "median_lean_degrees": float(np.degrees(np.median(np.linalg.norm(wrong[:, 4:], axis=1)))),
    }
