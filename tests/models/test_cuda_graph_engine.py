"""The CUDA-graph engine without a device: what it captures and keeps, with PyTorch's CUDA calls faked."""

from __future__ import annotations

import contextlib
import gc
import weakref

import pytest
import torch
from torch import nn

from networks import small_unet
from t3ssfast.kernels.graph import graph_of
from t3ssfast.models import LoadedModel, ModelMetadata, load_model
from t3ssfast.models.engines import cuda_graphs
from t3ssfast.models.torchscript import copy_module, quiet_torchscript


@pytest.fixture
def cuda(monkeypatch):
    """Fakes of what the engine calls; records devices of streams and the stream of each capture."""
    calls = {"streams": [], "captures": []}

    class Stream:
        def __init__(self, device=None) -> None:
            calls["streams"].append(device)

        def wait_stream(self, other) -> None:
            pass

    class Graph:
        def replay(self) -> None:
            pass

    def capture(graph, **options):
        calls["captures"].append(options)
        return contextlib.nullcontext()

    def nothing(*args, **options):
        return contextlib.nullcontext()

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *args: Stream("current"))
    monkeypatch.setattr(torch.cuda, "stream", nothing)
    monkeypatch.setattr(torch.cuda, "device", nothing)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    return calls


def test_weights_of_a_captured_graph_live_as_long_as_the_graph(cuda, monkeypatch):
    weights = []

    def watched(graph):
        half = half_precision(graph)
        for node in half.graph.find_nodes(op="get_attr"):
            weights.append(weakref.ref(getattr(half, node.target)))
        return half

    half_precision = cuda_graphs.half_precision
    monkeypatch.setattr(cuda_graphs, "half_precision", watched)
    engine = cuda_graphs.CudaGraphEngine(small_unet().frozen)
    with torch.inference_mode():
        for side in (32, 48):
            engine(torch.zeros(1, 1, side, 32))
        gc.collect()
        assert weights
        assert all(reference() is not None for reference in weights)
        engine(torch.zeros(1, 1, 64, 32))  # replaces the first of two
    gc.collect()
    gone = [reference() is None for reference in weights]
    assert any(gone)
    assert not all(gone)


def test_the_capture_runs_on_a_stream_of_the_tiles_device(cuda):
    engine = cuda_graphs.CudaGraphEngine(small_unet().frozen)
    tile = torch.zeros(1, 1, 32, 32)
    with torch.inference_mode():
        engine(tile)
    (options,) = cuda["captures"]
    assert options["stream"] is not None
    assert tile.device in cuda["streams"]


def test_frozen_networks_are_recorded_on_the_device_of_the_input():
    """A frozen network has no parameters that would tell where its constants are."""
    with quiet_torchscript():
        network = torch.jit.script(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).eval())
        moved = copy_module(network, torch.device("meta"))
        frozen = torch.jit.freeze(moved)
    assert not list(frozen.parameters())
    image = torch.zeros(1, 1, 8, 8, device="meta")
    graph = graph_of(frozen, image)
    constants = [getattr(graph, node.target) for node in graph.graph.find_nodes(op="get_attr")]
    assert constants
    assert {constant.device.type for constant in constants} == {"meta"}


def test_a_frozen_network_moves_with_its_constants(monkeypatch):
    """`Module.to` does not reach the constants of frozen TorchScript; loading it for a device does."""
    with quiet_torchscript():
        frozen = torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1)).eval()))
    target, loaded_to = torch.device("cuda", 1), []
    load = torch.jit.load

    def on_cpu(buffer, map_location=None):
        loaded_to.append(map_location)
        return load(buffer, map_location="cpu")

    monkeypatch.setattr(torch.jit, "load", on_cpu)
    moved = LoadedModel(frozen, ModelMetadata("segmenter"), "0" * 64, "frozen.pt").to(target)
    assert loaded_to == [target]
    assert moved.device == target


def test_translated_networks_move_with_their_graphs(tmp_path):
    with quiet_torchscript():
        torch.jit.script(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1)).eval()).save(tmp_path / "model.pt")
    with pytest.warns(UserWarning, match="metadata"):
        loaded = load_model(tmp_path / "model.pt", model_kind="segmenter")
    loaded.module(torch.zeros(1, 1, 8, 8))
    moved = loaded.to("meta")
    assert moved.module(torch.zeros(1, 1, 8, 8, device="meta")).device.type == "meta"
    assert loaded.module(torch.zeros(1, 1, 8, 8)).device.type == "cpu"
