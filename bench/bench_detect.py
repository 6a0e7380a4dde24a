"""detect() against the pipeline that a good user would write with torch alone.

That pipeline runs the U-Net eagerly on every slice, cuts the windows inside the mask with `Tensor.unfold` in
batches of 512, its best, and asks the LeNet for each. Everything around it (reading, normalisation, search
region, picking) is ours on both sides, so that the picks can be held against each other: they must agree.

The default is small; ``T3SSFAST_BENCH_SHAPE=128,512,512`` gives another size of the simulated tomogram.
"""

from __future__ import annotations

import os
from functools import cache

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

import t3ssfast as t3
from t3ssfast.calibrate import picking_threshold, read_calibration
from t3ssfast.models import LoadedModel, load_model
from t3ssfast.normalise import PreparedTomogram
from t3ssfast.pick import SparseScores, pick
from t3ssfast.segment import prune_membrane, search_region
from t3ssfast.windows import pad_for_windows

BATCH = 512
# Preselection off: a user's own pipeline has none, and both shall judge the same windows.
CONFIG = t3.DetectConfig(preselect=False, score_threshold=0.05, contrast="dark")


@cache
def models() -> tuple[LoadedModel, LoadedModel]:
    return load_model(None, kind="segmenter"), load_model(None, kind="classifier")


@cache
def tomogram() -> t3.Tomogram:
    given = os.environ.get("T3SSFAST_BENCH_SHAPE")
    if given:
        return t3.simulate(11, [int(n) for n in given.split(",")]).tomogram
    thick = t3.simulate(11, (32, 160, 160)).tomogram
    return t3.Tomogram(thick.data[12:20], thick.voxel_size_angstrom, thick.name)


def ours() -> tuple[np.ndarray, np.ndarray]:
    segmenter, classifier = models()
    found = t3.detect(
        tomogram(), segmenter=segmenter, classifier=classifier, config=CONFIG, device="cpu", progress=False
    )
    return found.candidates.centre_zyx, found.candidates.score


@torch.inference_mode()
def plain_torch() -> tuple[np.ndarray, np.ndarray]:
    segmenter, classifier = models()
    size = classifier.metadata.window_px
    assert size is not None
    grid = PreparedTomogram.prepare(
        tomogram(),
        voxel_size_angstrom=classifier.metadata.voxel_size_angstrom,
        normalisation=classifier.metadata.normalisation,
    )
    depth, height, width = grid.shape
    mask = np.empty(grid.shape, np.uint8)
    for z in range(depth):
        image = torch.from_numpy(grid.slab(z, z + 1))[None]
        padded = torch.nn.functional.pad(image, (0, -width % 16, 0, -height % 16), mode="reflect")
        probability = segmenter.probability(segmenter.module(padded))[0, 0, :height, :width]
        mask[z] = (probability > CONFIG.membrane_threshold).numpy()
    nm = grid.voxel_size_angstrom / 10
    area = min(CONFIG.membrane_min_area_nm2, depth * nm * CONFIG.membrane_min_area_nm2**0.5)
    mask = prune_membrane(mask, grid.voxel_size_angstrom, area)
    region = search_region(mask, grid.voxel_size_angstrom, CONFIG.search_distance_nm)
    scores = np.zeros(grid.shape, np.float32)
    for z in range(depth):
        windows = (
            torch.from_numpy(pad_for_windows(grid.slab(z, z + 1), size)[0])
            .unfold(0, size, 1)
            .unfold(1, size, 1)
        )
        y, x = (torch.from_numpy(i) for i in np.nonzero(region[z]))
        for first in range(0, len(y), BATCH):
            here = slice(first, first + BATCH)
            answer = classifier.probability(classifier.module(windows[y[here], x[here]][:, None]))
            scores[z, y[here], x[here]] = answer.numpy()
    calibration = read_calibration(classifier.metadata.calibration)
    assert calibration is not None, "the bundled classifier is calibrated"
    centre, score = pick(
        SparseScores.from_dense(scores, region),
        voxel_size_angstrom=grid.voxel_size_angstrom,
        smoothing_nm=CONFIG.score_smoothing_nm,
        threshold=picking_threshold(calibration, CONFIG),
        min_distance_nm=CONFIG.min_distance_nm,
    )
    return np.clip(grid.to_tomogram(centre), 0, np.array(tomogram().shape) - 1), calibration.apply(score)


@pytest.fixture(scope="module")
def expected() -> tuple[np.ndarray, np.ndarray]:
    return plain_torch()


def check(found: tuple[np.ndarray, np.ndarray], expected: tuple[np.ndarray, np.ndarray]) -> None:
    assert len(found[0]) == len(expected[0])
    assert len(found[0]) > 0
    np.testing.assert_allclose(found[0], expected[0], atol=0.05)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-4)


@pytest.mark.benchmark(group="detect, no preselection")
def bench_detect_t3ssfast(benchmark: BenchmarkFixture, expected: tuple[np.ndarray, np.ndarray]) -> None:
    check(benchmark.pedantic(ours, rounds=3, warmup_rounds=1), expected)


@pytest.mark.benchmark(group="detect, no preselection")
def bench_detect_plain_torch(benchmark: BenchmarkFixture, expected: tuple[np.ndarray, np.ndarray]) -> None:
    check(benchmark.pedantic(plain_torch, rounds=1), expected)
