"""detect() against the pipeline that a good user would write with torch alone.

That pipeline is `t3ssfast.cli.benchmarks.detect_by_torch`. Everything around it (reading, normalisation,
search region, picking) is ours on both sides, so that the picks must agree.

The default is small; ``T3SSFAST_BENCH_SHAPE=128,512,512`` gives another size of the simulated tomogram.
"""

from __future__ import annotations

import os
from functools import cache

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import t3ssfast as t3
from t3ssfast.cli.benchmarks import PLAIN_CONFIG, detect_by_torch
from t3ssfast.models import LoadedModel, load_model


@cache
def models() -> tuple[LoadedModel, LoadedModel]:
    return load_model(None, model_kind="segmenter"), load_model(None, model_kind="classifier")


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
        tomogram(),
        segmenter=segmenter,
        classifier=classifier,
        config=PLAIN_CONFIG,
        device="cpu",
        progress=False,
    )
    return found.candidates.centre_zyx, found.candidates.score


@cache
def answer_of_torch() -> tuple[np.ndarray, np.ndarray]:
    """Minutes of work at the size of a tomogram: done once, whichever benchmark comes first."""
    return detect_by_torch(tomogram(), *models())


def check(found: tuple[np.ndarray, np.ndarray], expected: tuple[np.ndarray, np.ndarray]) -> None:
    assert len(found[0]) == len(expected[0])
    assert len(found[0]) > 0
    np.testing.assert_allclose(found[0], expected[0], atol=0.05)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-4)


@pytest.mark.timeout(0)
@pytest.mark.benchmark(group="detect, no preselection")
def bench_detect_plain_torch(benchmark: BenchmarkFixture) -> None:
    # Made before the clock starts.
    tomogram()
    models()
    assert len(benchmark.pedantic(answer_of_torch, rounds=1)[0]) > 0


@pytest.mark.timeout(0)
@pytest.mark.benchmark(group="detect, no preselection")
def bench_detect_t3ssfast(benchmark: BenchmarkFixture) -> None:
    expected = answer_of_torch()
    check(benchmark.pedantic(ours, rounds=3, warmup_rounds=1), expected)
