"""The bundled U-Net (base 16, depth 4) on a slice of 1024 x 1024 by each engine, against PyTorch eagerly.

``T3SSFAST_BENCH_SIDE`` gives another side. ``python bench/bench_segment.py [threads]`` runs all in turns and
prints ratios of minima and medians: what else the machine does then meets all alike. Two rows need OpenVINO
installed; one of them is OpenVINO alone on the same weights, as its documentation has it: it must not be
faster than the engine that uses it.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from t3ssfast.detection.segment_slice import segment_slice
from t3ssfast.kernels._native import openvino_version
from t3ssfast.models import LoadedModel, UNet, load_model
from t3ssfast.models.engines.openvino import _openvino

SIDE = int(os.environ.get("T3SSFAST_BENCH_SIDE", "1024"))
TOLERANCE = 1e-4
GROUP = f"U-Net base 16, {SIDE} x {SIDE}"
openvino_only = pytest.mark.skipif(openvino_version() is None, reason="OpenVINO is not installed")


@cache
def model() -> LoadedModel:
    return load_model(None, model_kind="segmenter")


@cache
def eager() -> UNet:
    network = UNet(depth=4, base=16, slices=model().metadata.slices).eval()
    network.load_state_dict(model().module.state_dict())
    return network


@cache
def image() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((model().metadata.slices, SIDE, SIDE), np.float32)


@torch.inference_mode()
def by_eager() -> np.ndarray:
    return torch.sigmoid(eager()(torch.from_numpy(image())[None]))[0, 0].numpy()


@cache
def expected() -> np.ndarray:
    return by_eager()


@pytest.mark.benchmark(group=GROUP)
def bench_segment_torch_eager(benchmark: BenchmarkFixture) -> None:
    found = benchmark.pedantic(by_eager, rounds=7, warmup_rounds=1)
    np.testing.assert_allclose(found, expected(), atol=TOLERANCE)


@pytest.mark.benchmark(group=GROUP)
@pytest.mark.parametrize("engine", ["torch", pytest.param("openvino", marks=openvino_only)])
def bench_segment_t3ssfast(benchmark: BenchmarkFixture, engine: str) -> None:
    found = benchmark.pedantic(by_engine(engine), rounds=7, warmup_rounds=2)
    np.testing.assert_allclose(found, expected(), atol=TOLERANCE)


def openvino_alone() -> Callable[[], np.ndarray]:
    openvino = _openvino()
    with torch.no_grad():
        traced = torch.jit.trace(eager(), torch.zeros(1, *image().shape), check_trace=False)
    decoder = openvino.frontend.pytorch.ts_decoder.TorchScriptPythonDecoder(traced)
    frontend = openvino.frontend.FrontEndManager().load_by_framework("pytorch")
    network = frontend.convert(frontend.load(decoder))
    network.reshape(openvino.PartialShape([1, *image().shape]))
    threads = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(network, "CPU", threads)

    def run() -> np.ndarray:
        return 1 / (1 + np.exp(-compiled([image()[None]])[0][0, 0]))

    return run


@pytest.mark.benchmark(group=GROUP)
@openvino_only
def bench_segment_openvino_alone(benchmark: BenchmarkFixture) -> None:
    found = benchmark.pedantic(openvino_alone(), rounds=7, warmup_rounds=2)
    np.testing.assert_allclose(found, expected(), atol=TOLERANCE)


def by_engine(engine: str) -> Callable[[], np.ndarray]:
    return lambda: segment_slice(image(), model(), engine=engine, max_tile=max(SIDE, 512))


def table(threads: int, rounds: int = 7) -> None:
    """Seconds of each in turns; on one thread processor time, which other work hardly changes."""
    torch.set_num_threads(threads)
    ways = {"torch eager": by_eager, "t3ssfast by torch": by_engine("torch")}
    if openvino_version() is not None:
        ways |= {"t3ssfast by OpenVINO": by_engine("openvino"), "OpenVINO alone": openvino_alone()}
    for way in ways.values():
        np.testing.assert_allclose(way(), expected(), atol=TOLERANCE)
    clock = time.process_time if threads == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = clock()
            way()
            seconds[name].append(clock() - start)
    ours = seconds.get("t3ssfast by OpenVINO", seconds["t3ssfast by torch"])
    print(f"{GROUP}, {threads} thread(s); over ours: minima, medians")
    for name, taken in seconds.items():
        least, middle = min(taken), statistics.median(taken)
        print(
            f"{name:22} {least:6.3f} s {middle:6.3f} s  {least / min(ours):5.2f} "
            f"{middle / statistics.median(ours):5.2f}"
        )


if __name__ == "__main__":
    table(int(sys.argv[1]) if len(sys.argv) > 1 else torch.get_num_threads())
