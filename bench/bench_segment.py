"""The bundled U-Net (base 16, depth 4) on a slice of 1024 x 1024 by each engine, against PyTorch eager mode.

``T3SSFAST_BENCH_SIDE`` sets another side. ``python bench/bench_segment.py [threads]`` times all engines in
turns and prints ratios of minima and medians. Two rows need OpenVINO. One of them is OpenVINO alone on the
same weights, used as its documentation says, which must not be faster than the engine that uses it.
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

from t3ssfast.cli.benchmarks import time_in_turns
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
def eager_model() -> UNet:
    network = UNet(depth=4, base=16, slices=model().metadata.slices).eval()
    network.load_state_dict(model().module.state_dict())
    return network


@cache
def image() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((model().metadata.slices, SIDE, SIDE), np.float32)


@torch.inference_mode()
def run_eager() -> np.ndarray:
    return torch.sigmoid(eager_model()(torch.from_numpy(image())[None]))[0, 0].numpy()


@cache
def expected() -> np.ndarray:
    return run_eager()


def engine_runner(engine: str) -> Callable[[], np.ndarray]:
    return lambda: segment_slice(image(), model(), engine=engine, max_tile=max(SIDE, 512))


def openvino_runner() -> Callable[[], np.ndarray]:
    openvino = _openvino()
    with torch.no_grad():
        traced = torch.jit.trace(eager_model(), torch.zeros(1, *image().shape), check_trace=False)
    decoder = openvino.frontend.pytorch.ts_decoder.TorchScriptPythonDecoder(traced)
    frontend = openvino.frontend.FrontEndManager().load_by_framework("pytorch")
    network = frontend.convert(frontend.load(decoder))
    network.reshape(openvino.PartialShape([1, *image().shape]))
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(network, "CPU", options)
    return lambda: 1 / (1 + np.exp(-compiled([image()[None]])[0][0, 0]))


@pytest.mark.benchmark(group=GROUP)
def bench_segment_torch_eager(benchmark: BenchmarkFixture) -> None:
    found = benchmark.pedantic(run_eager, rounds=7, warmup_rounds=1)
    np.testing.assert_allclose(found, expected(), atol=TOLERANCE)


@pytest.mark.benchmark(group=GROUP)
@pytest.mark.parametrize("engine", ["torch", pytest.param("openvino", marks=openvino_only)])
def bench_segment_t3ssfast(benchmark: BenchmarkFixture, engine: str) -> None:
    found = benchmark.pedantic(engine_runner(engine), rounds=7, warmup_rounds=2)
    np.testing.assert_allclose(found, expected(), atol=TOLERANCE)


@pytest.mark.benchmark(group=GROUP)
@openvino_only
def bench_segment_openvino_alone(benchmark: BenchmarkFixture) -> None:
    found = benchmark.pedantic(openvino_runner(), rounds=7, warmup_rounds=2)
    np.testing.assert_allclose(found, expected(), atol=TOLERANCE)


def table(threads: int) -> None:
    """Print seconds and ratios of one run in turns."""
    torch.set_num_threads(threads)
    ways = {"torch eager": run_eager, "t3ssfast by torch": engine_runner("torch")}
    if openvino_version() is not None:
        ways |= {"t3ssfast by OpenVINO": engine_runner("openvino"), "OpenVINO alone": openvino_runner()}
    for way in ways.values():
        np.testing.assert_allclose(way(), expected(), atol=TOLERANCE)
    # On one thread, CPU time depends less on other work on the machine.
    clock = time.process_time if threads == 1 else time.perf_counter
    seconds = dict(zip(ways, time_in_turns(*ways.values(), rounds=7, clock=clock), strict=True))
    ours = seconds.get("t3ssfast by OpenVINO", seconds["t3ssfast by torch"])
    print(f"{GROUP}, {threads} thread(s); minimum and median, and their ratios to t3ssfast")
    for name, times in seconds.items():
        minimum, median = min(times), statistics.median(times)
        ratios = f"{minimum / min(ours):5.2f} {median / statistics.median(ours):5.2f}"
        print(f"{name:22} {minimum:6.3f} s {median:6.3f} s  {ratios}")


if __name__ == "__main__":
    table(int(sys.argv[1]) if len(sys.argv) > 1 else torch.get_num_threads())
