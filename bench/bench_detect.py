"""`detect()` against the pipeline of `t3ssfast.cli.torch_baselines.detect_by_torch`.

Reading, normalisation, search region and picking are those of t3ssfast on both sides, so the picks must be
equal.

The default tomogram is small; ``T3SSFAST_BENCH_SHAPE=128,512,512`` sets another shape.
"""

from __future__ import annotations

import os
from functools import cache

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

import t3ssfast as t3
from t3ssfast.cli.benchmarks import detect_like_torch, small_tomogram
from t3ssfast.cli.torch_baselines import detect_by_torch
from t3ssfast.models import LoadedModel, load_model


@cache
def models() -> tuple[LoadedModel, LoadedModel]:
    return load_model(None, model_kind="segmenter"), load_model(None, model_kind="classifier")


@cache
def tomogram() -> t3.Tomogram:
    shape = os.environ.get("T3SSFAST_BENCH_SHAPE")
    return t3.simulate(11, [int(n) for n in shape.split(",")]).tomogram if shape else small_tomogram()


@cache
def torch_result() -> tuple[np.ndarray, np.ndarray]:
    """Run the baseline once for both benchmarks, since it takes minutes at the size of a tomogram."""
    return detect_by_torch(tomogram(), *models())


@pytest.mark.timeout(0)
@pytest.mark.benchmark(group="detect, no preselection")
def bench_detect_plain_torch(benchmark: BenchmarkFixture) -> None:
    # Cached here, outside the measured time.
    tomogram()
    models()
    assert len(benchmark.pedantic(torch_result, rounds=1)[0]) > 0


@pytest.mark.timeout(0)
@pytest.mark.benchmark(group="detect, no preselection")
def bench_detect_t3ssfast(benchmark: BenchmarkFixture) -> None:
    expected_centre, expected_score = torch_result()
    arguments = (tomogram(), *models(), torch.device("cpu"))
    centre, score = benchmark.pedantic(detect_like_torch, arguments, rounds=3, warmup_rounds=1)
    assert len(centre) == len(expected_centre) > 0
    np.testing.assert_allclose(centre, expected_centre, atol=0.05)
    np.testing.assert_allclose(score, expected_score, atol=1e-4)
