"""Verification: a network on cylindrical sections scores each candidate and corrects its centre and axis."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit, logit, logsumexp

from t3ssfast.detection.cylindrical_sections import (
    Float64Array,
    HeldSlices,
    axis_frames,
    box_size,
    correct_axis,
    cut_boxes,
    cylindrical_sections,
    rotate_frames,
)
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.models import AZIMUTHS, LoadedModel
from t3ssfast.models.metadata import TARGET_CLASS
from t3ssfast.runtime.threads import map_in_threads
from t3ssfast.runtime.upload import Uploader

__all__ = [
    "MIN_PROBABILITY",
    "approach",
    "log_odds_of_kinds",
    "missing_membrane_penalty",
    "verifier_probability",
    "verify",
]

# Weight of the verifier's log-odds. Average precision on the calibration tomograms: 0.955 with 0.2, 0.962
# with 0.3, 0.965 with 0.4 and 0.5, 0.964 with 0.6; for another simulator the best weights are 0.4 to 0.6.
VERIFIER_WEIGHT = 0.4
# The classifier's probabilities are clipped to [MIN_PROBABILITY, 1 - MIN_PROBABILITY]: log-odds stay finite.
MIN_PROBABILITY = 1e-4
# Each iteration starts from the centre and the axis that the last one found, which improves the answer.
ITERATIONS = 3
# Then three more views are averaged: degrees of rotation about the axis, and nanometres of shift across it.
# Averaging removes what depends on the position of the sections.
EXTRA_VIEWS = ((180 / AZIMUTHS, 0.0), (90 / AZIMUTHS, 1.1), (90 / AZIMUTHS, -1.1))
# Below these log-odds of classifier and verifier after each look, a candidate is not looked at again. No T3SS
# of ten calibration tomograms that ended above the default threshold was below.
HOPELESS_LOG_ODDS = (-2.5, -1.5, -1.5)
# Batches that are looked at at a time, on a share of the threads each; a batch takes about 0.1 GB.
BATCHES_AT_A_TIME = 4
# Candidates of this many slices are looked at together, while their slices are held.
BLOCK_SLICES = 16
# Bounds on one iteration. The verifier was trained to reject particles farther away than the shift.
MAX_SHIFT_NM = 8.0
MAX_TILT_DEGREES = 60.0
# The penalty for missing membrane rises from 0 at the first distance to its maximum at the second.
PENALTY_START_NM, PENALTY_END_NM = 15.0, 55.0
# The missing wedge removes membrane whose normal is within the first angle of the beam, and keeps membrane
# beyond the second.
WEDGE_INNER_DEGREES, WEDGE_OUTER_DEGREES = 18.0, 50.0
MAX_PENALTY_LOG_ODDS = 1.0


def verify(
    grid: PreparedTomogram,
    centre_zyx: npt.ArrayLike,
    normal_zyx: npt.ArrayLike,
    score: npt.NDArray[np.float32],
    verifier: LoadedModel,
    *,
    drop_hopeless: bool = False,
) -> tuple[Float64Array, Float64Array, npt.NDArray[np.int64], Float64Array]:
    """Refine the centres and axes of candidates, and combine the scores of classifier and verifier.

    The weighted mean of their log-odds ranks better than either: they were trained on different data. The
    verifier runs several times, because the missing wedge leaves little membrane to tell the axis of a T3SS
    that faces the beam. Centres are (n, 3) voxels of `grid`, the verifier's; normals are (n, 3) unit vectors
    out of the cell. The results are centres, unit vectors along the axes, the index (n,) of each candidate's
    kind among those of the verifier, and its log-odds (n,), in float64.

    The classifier finds T3SS alone and says nothing about other kinds. A candidate is of another kind where
    the verifier finds that more probable than a T3SS and than none of the kinds, and else of the kind with
    the highest log-odds.

    With `drop_hopeless`, candidates whose log-odds after a look are below `HOPELESS_LOG_ODDS` keep that
    answer.
    """
    kinds = verifier.metadata.kinds
    centres = np.array(centre_zyx, np.float64).reshape(-1, 3)
    frames = axis_frames(np.asarray(normal_zyx, np.float64).reshape(-1, 3))
    logits = np.zeros((len(centres), len(kinds)))
    slices = _slices_of(grid, verifier)
    for block in _blocks(centres):
        last = np.zeros((len(block), len(kinds)))
        for look in range(ITERATIONS):
            centres[block], frames[block], last = _look(slices, centres[block], frames[block], verifier)
            logits[block] = last
            if drop_hopeless:
                _, log_odds = _combine(last, score[block], kinds)
                promising = log_odds >= HOPELESS_LOG_ODDS[look]
                block, last = block[promising], last[promising]
        extra = _run_verifier(slices, centres[block], frames[block], verifier, EXTRA_VIEWS)
        logits[block] = np.mean([last, *extra[:, :, : len(kinds)]], axis=0)
    return centres, frames[:, 0], *_combine(logits, score, kinds)


def approach(
    grid: PreparedTomogram,
    centre_zyx: npt.ArrayLike,
    normal_zyx: npt.ArrayLike,
    verifier: LoadedModel,
    least_log_odds: Sequence[float],
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Look at positions that may be some nanometres from a particle of another kind than T3SS.

    There is a look for each value of `least_log_odds`, from where the look before led to. Positions whose
    highest log-odds of another kind so far, by the verifier alone, are below it are dropped; far from a
    particle log-odds vary from look to look. Returns the centres, the axes and the last log-odds (m,) of
    those that are left.
    """
    kinds = verifier.metadata.kinds
    others = [k for k, kind in enumerate(kinds) if kind != TARGET_CLASS]
    centres = np.array(centre_zyx, np.float64).reshape(-1, 3)
    frames = axis_frames(np.asarray(normal_zyx, np.float64).reshape(-1, 3))
    log_odds, highest = (np.full(len(centres), -np.inf) for _ in range(2))
    dropped = np.zeros(len(centres), bool)
    slices = _slices_of(grid, verifier)
    for block in _blocks(centres):
        for least in least_log_odds:
            centres[block], frames[block], logits = _look(slices, centres[block], frames[block], verifier)
            log_odds[block] = log_odds_of_kinds(logits)[:, others].max(axis=1)
            highest[block] = np.maximum(highest[block], log_odds[block])
            hopeless = highest[block] < least
            dropped[block[hopeless]] = True
            block = block[~hopeless]
    kept = ~dropped
    return centres[kept], frames[kept, 0], log_odds[kept]


def _slices_of(grid: PreparedTomogram, verifier: LoadedModel) -> HeldSlices:
    """The slices of a tomogram, held beside the verifier while a block of candidates is looked at."""
    upload = None if verifier.device.type == "cpu" else Uploader(verifier.device)
    below = BLOCK_SLICES + math.ceil(MAX_SHIFT_NM * 10 / grid.voxel_size_angstrom)
    return HeldSlices(grid, below, upload)


def _blocks(centres: Float64Array) -> Iterator[npt.NDArray[np.int64]]:
    """Yield (m,) indices of the centres of every few slices, so that a slice is prepared for all looks."""
    number = np.floor(centres[:, 0] / BLOCK_SLICES)
    for block in np.unique(number):
        yield np.flatnonzero(number == block)


def _look(
    slices: HeldSlices, centres: Float64Array, frames: Float64Array, verifier: LoadedModel
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Look once; return the corrected centres and frames, and the logits (n, kinds) from before."""
    grid, kinds = slices.grid, len(verifier.metadata.kinds)
    (answers,) = _run_verifier(slices, centres, frames, verifier)
    pose = answers[:, kinds:]
    max_shift = MAX_SHIFT_NM * 10 / grid.voxel_size_angstrom
    shift = _limit_length(np.einsum("nij,ni->nj", frames, pose[:, :3]), max_shift)
    tilt = _limit_length(pose[:, 3:], math.radians(MAX_TILT_DEGREES))
    moved = np.clip(centres + shift, 0, np.array(grid.shape) - 1)
    return moved, axis_frames(correct_axis(frames, tilt)), answers[:, :kinds]


def _combine(
    logits: Float64Array, score: npt.NDArray[np.float32], kinds: tuple[str, ...]
) -> tuple[npt.NDArray[np.int64], Float64Array]:
    """Return the kinds, as indices, and the log-odds of candidates from the answers of both networks."""
    log_odds = log_odds_of_kinds(logits)
    # The most probable kind by the verifier alone; the last is none of them.
    kind = np.pad(logits, ((0, 0), (0, 1))).argmax(axis=1)
    undecided = kind == len(kinds)
    if TARGET_CLASS in kinds:
        target = kinds.index(TARGET_CLASS)
        probability = np.clip(score.astype(np.float64), MIN_PROBABILITY, 1 - MIN_PROBABILITY)
        # Other kinds do not lower the score of a T3SS: they are negatives of its logit already.
        log_odds[:, target] = (1 - VERIFIER_WEIGHT) * logit(probability) + VERIFIER_WEIGHT * logits[:, target]
        undecided |= kind == target
    kind[undecided] = log_odds[undecided].argmax(axis=1)
    return kind, log_odds[np.arange(len(kind)), kind]


def log_odds_of_kinds(logits: Float64Array) -> Float64Array:
    """Return the log-odds of each kind against all else, from (n, kinds) logits.

    The probabilities of the kinds, and of none of them, are the softmax of the logits and of 0.
    """
    others = np.zeros_like(logits)
    for kind in range(logits.shape[1]):
        # log(1 + sum of exp) over the other kinds.
        others[:, kind] = logsumexp(np.pad(np.delete(logits, kind, axis=1), ((0, 0), (0, 1))), axis=1)
    return logits - others


def verifier_probability(
    log_odds: Float64Array, score: npt.NDArray[np.float32], kind: npt.NDArray[np.str_]
) -> npt.NDArray[np.float32]:
    """Return the verifier's own answer, (n,), for candidates with the kinds and log-odds of `verify`.

    `score` (n,) are the classifier's probabilities, which the log-odds of a T3SS contain.
    """
    probability = np.clip(score.astype(np.float64), MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    of_t3ss = (log_odds - (1 - VERIFIER_WEIGHT) * logit(probability)) / VERIFIER_WEIGHT
    return np.asarray(expit(np.where(kind == TARGET_CLASS, of_t3ss, log_odds)), np.float32)


def missing_membrane_penalty(
    membrane: npt.NDArray[Any], centre_zyx: Float64Array, axis_zyx: Float64Array, voxel_size_angstrom: float
) -> Float64Array:
    """Return a penalty in log-odds for candidates (voxels of the mask, unit axes) without membrane nearby.

    A T3SS stands on a membrane, along its normal. The segmenter misses membrane that the missing wedge
    removes, which faces the beam. So far from all membrane, an axis across the beam is implausible.
    """
    distance = [_distance_nm(membrane, centre, voxel_size_angstrom / 10) for centre in centre_zyx]
    from_beam = np.degrees(np.arccos(np.clip(np.abs(axis_zyx[:, 0]), 0, 1)))
    far = np.interp(distance, (PENALTY_START_NM, PENALTY_END_NM), (0.0, 1.0))
    visible = np.interp(from_beam, (WEDGE_INNER_DEGREES, WEDGE_OUTER_DEGREES), (0.0, 1.0))
    return np.asarray(MAX_PENALTY_LOG_ODDS * far * visible)


def _distance_nm(membrane: npt.NDArray[Any], centre: Float64Array, nm_per_voxel: float) -> float:
    """Return the distance to the nearest voxel of membrane, at most `PENALTY_END_NM`."""
    nearest = PENALTY_END_NM / nm_per_voxel
    # Most are close to membrane, which a small box shows.
    for reach in (PENALTY_START_NM / nm_per_voxel, nearest):
        low = np.maximum(np.ceil(centre - reach), 0).astype(int)
        box = tuple(map(slice, low, np.floor(centre + reach).astype(int) + 1))
        offsets = np.argwhere(membrane[box]) + (low - centre)
        nearest = min(nearest, math.sqrt((offsets**2).sum(axis=1).min(initial=nearest**2)))
        if nearest <= reach:
            break
    return nearest * nm_per_voxel


def _limit_length(vectors: Float64Array, limit: float) -> Float64Array:
    """Shorten those of (n, k) vectors that are longer than a limit."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors * (limit / np.maximum(length, limit)))


def _run_verifier(
    slices: HeldSlices,
    centres: Float64Array,
    frames: Float64Array,
    verifier: LoadedModel,
    views: Sequence[tuple[float, float]] = ((0.0, 0.0),),
) -> Float64Array:
    """Return (v, n, kinds + 5) answers about candidates, in views that differ by degrees and nanometres."""
    height = verifier.metadata.window_px
    assert height is not None, "load_model gives every verifier a height"
    middle = np.floor(centres + 0.5).astype(np.int64)
    answers = np.zeros((len(views), len(centres), len(verifier.metadata.classes)))
    # Made once, before threads ask for it.
    network = verifier.fused

    def answer(cut: tuple[npt.NDArray[np.int64], torch.Tensor]) -> None:
        chosen, boxes = cut
        for view, (degrees, nm) in enumerate(views):
            shift = nm * 10 / slices.grid.voxel_size_angstrom * frames[chosen, 1]
            rotated = rotate_frames(frames[chosen], np.full(len(chosen), math.radians(degrees)))
            sections = cylindrical_sections(boxes, centres[chosen] - middle[chosen] + shift, rotated, height)
            with torch.inference_mode(), verifier.named_errors("sections around an axis"):
                answers[view, chosen] = network(sections).double().cpu().numpy()

    workers = min(torch.get_num_threads(), BATCHES_AT_A_TIME) if verifier.device.type == "cpu" else 1
    cuts = cut_boxes(slices, middle, box_size(height))
    while few := list(islice(cuts, workers)):
        map_in_threads(answer, few, workers)
    return answers
