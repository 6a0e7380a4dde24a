"""What a good user would write with PyTorch alone; the baselines of `t3ssfast bench` and of `bench/`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t3ssfast.detection.calibrate import picking_threshold
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.normalise import PreparedTomogram, neighbouring_slices
from t3ssfast.detection.pick import pick
from t3ssfast.detection.prune_membrane import prune_membrane
from t3ssfast.detection.search_region import SearchRegion
from t3ssfast.detection.segment_slice import SIDE_MULTIPLE, slice_weights, weighted_mean
from t3ssfast.detection.smooth_scores import SparseScores
from t3ssfast.evaluation.calibration import read_calibration
from t3ssfast.kernels.padding import pad_for_windows
from t3ssfast.models import LoadedModel
from t3ssfast.tomogram import Tomogram

# Number of windows per batch at which PyTorch is fastest on a CPU.
BATCH = 512
# No preselection or verifier, which a user's own pipeline has not, so that both score the same windows. The
# low threshold gives enough picks to compare.
BASELINE_CONFIG = DetectConfig(
    preselect=False,
    verify=False,
    score_threshold=0.01,
    contrast="dark",
    segmented_spacing_nm=0.0,
    classified_spacing_nm=0.0,
)


def moments_and_extrema(stack: Tensor, size: int) -> Tensor:
    """Compute mean, std, skewness, kurtosis, min and max of (N, H, W) images by pooling: (6, N, H', W')."""
    x = stack[:, None].double()
    m1, m2, m3, m4 = (F.avg_pool2d(x**k, size, stride=1)[:, 0] for k in range(1, 5))
    variance = m2 - m1**2
    third = m3 - 3 * m1 * m2 + 2 * m1**3
    fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
    moments = m1, variance.sqrt(), third / variance**1.5, fourth / variance**2 - 3
    extrema = -F.max_pool2d(-stack, size, 1), F.max_pool2d(stack, size, 1)
    return torch.stack([*(m.float() for m in moments), *extrema])


def medians(image: Tensor, size: int) -> Tensor:
    """Compute the median of every window of an (H, W) image by sorting, one row of windows at a time."""
    windows = image.unfold(0, size, 1).unfold(1, size, 1)
    middle = size * size // 2
    rows = (row.reshape(len(row), -1).sort(dim=1).values for row in windows)
    return torch.stack([(row[:, middle - 1] + row[:, middle]) / 2 for row in rows])


@torch.inference_mode()
def score_in_batches(model: nn.Module, image: Tensor, mask: Tensor, *, size: int = 50) -> Tensor:
    """Run a classifier on batches of the windows of an (H, W) image that a mask selects: (M, C)."""
    windows = image.unfold(0, size, 1).unfold(1, size, 1)
    y, x = mask.nonzero(as_tuple=True)
    batches = zip(torch.split(y, BATCH), torch.split(x, BATCH), strict=True)
    return torch.cat([model(windows[rows, columns][:, None]) for rows, columns in batches])


@torch.inference_mode()
def detect_by_torch(
    tomogram: Tomogram, segmenter: LoadedModel, classifier: LoadedModel
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    """Detect with the U-Net slice by slice and the LeNet in batches of windows, as `BASELINE_CONFIG` says.

    Returns (n, 3) centres in voxels and (n,) scores, highest first. Everything else (normalisation, search
    region, picking) is taken from t3ssfast, so the picks equal those of `detect`.
    """
    config = BASELINE_CONFIG
    size, calibration = classifier.metadata.window_px, read_calibration(classifier.metadata.calibration)
    assert size is not None, "load_model gives every classifier a window"
    grid = PreparedTomogram.prepare(
        tomogram,
        voxel_size_angstrom=classifier.metadata.voxel_size_angstrom,
        normalisation=classifier.metadata.normalisation,
    )
    values, voxel_size = grid.slab(0, grid.shape[0]), grid.voxel_size_angstrom
    mask = _membrane(values, segmenter, config.search_threshold)
    # In a volume thinner than the smallest piece is wide, a piece is as long but no taller than the volume.
    min_area = config.membrane_min_area_nm2
    mask = prune_membrane(mask, voxel_size, min(min_area, len(values) * voxel_size / 10 * min_area**0.5))
    region = SearchRegion.of(mask, voxel_size, config).slab(0, len(values))
    scores = np.zeros(grid.shape, np.float32)
    for z in np.flatnonzero(region.any(axis=(1, 2))):
        padded = torch.from_numpy(pad_for_windows(values[z : z + 1], size)[0]).to(classifier.device)
        searched = torch.from_numpy(region[z]).to(classifier.device) > 0
        logits = score_in_batches(classifier.module, padded, searched, size=size)
        scores[z][region[z] > 0] = classifier.probability(logits).cpu().numpy()
    centre, score = pick(
        SparseScores.from_dense(scores, region),
        voxel_size_angstrom=voxel_size,
        smoothing_nm=config.score_smoothing_nm,
        threshold=picking_threshold(calibration, config),
        min_distance_nm=config.min_distance_nm,
    )
    centre = np.clip(grid.to_tomogram(centre), 0, np.array(tomogram.shape) - 1)
    return centre, score if calibration is None else calibration.apply(score)


def _membrane(
    values: npt.NDArray[np.float32], segmenter: LoadedModel, threshold: float
) -> npt.NDArray[np.uint8]:
    """Return where the membrane probability, averaged with the neighbouring slices, exceeds a threshold."""
    _, height, width = values.shape
    probability = np.empty(values.shape, np.float32)
    for z in range(len(values)):
        slices = torch.from_numpy(neighbouring_slices(values, z, segmenter.metadata.slices))[None]
        padding = (0, -width % SIDE_MULTIPLE, 0, -height % SIDE_MULTIPLE)
        padded = F.pad(slices.to(segmenter.device), padding, mode="reflect")
        found = segmenter.probability(segmenter.module(padded))
        probability[z] = found[0, 0, :height, :width].cpu().numpy()
    segmented = dict(enumerate(probability))
    averages = (weighted_mean(slice_weights(z, len(values)), segmented) for z in segmented)
    return np.stack([average > threshold for average in averages]).astype(np.uint8)
