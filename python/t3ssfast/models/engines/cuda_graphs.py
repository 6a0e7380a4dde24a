"""Segmenter inference on a CUDA device: float16, channels last, one captured graph per tile shape."""

from __future__ import annotations

import copy
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from t3ssfast.kernels.graph import graph_of
from t3ssfast.runtime.memory import release_when_short

__all__ = ["CudaGraphEngine", "half_precision"]

# Captured graphs kept at a time; each holds its activations.
MAX_CAPTURED_SHAPES = 2
# Runs before a capture, in which cuDNN chooses algorithms and libraries allocate their workspaces.
WARM_UP_RUNS = 3


def half_precision(graph: fx.GraphModule) -> fx.GraphModule:
    """Return a copy of a graph with floating-point constants in float16; fold batch normalisation before."""
    graph = fx.GraphModule(graph, copy.deepcopy(graph.graph))
    for node in graph.graph.find_nodes(op="get_attr"):
        value = getattr(graph, node.target)
        if isinstance(value, Tensor) and value.is_floating_point():
            memory_format = torch.channels_last if value.ndim == 4 else torch.contiguous_format
            setattr(graph, node.target, value.half().contiguous(memory_format=memory_format))
    return graph


@dataclass(frozen=True)
class _Captured:
    """A captured graph with everything whose memory it reads and writes."""

    graph: torch.cuda.CUDAGraph
    input: Tensor
    output: Tensor
    # The graph holds the addresses of these weights but does not own them.
    network: fx.GraphModule


class CudaGraphEngine:
    """Run a frozen network on a CUDA device in float16 by replaying captured CUDA graphs."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._captured: OrderedDict[tuple[int, ...], _Captured] = OrderedDict()
        release_when_short(self)

    def release(self) -> None:
        """Free the captured graphs; the next call captures what it needs again."""
        self._captured.clear()

    def __call__(self, tile: Tensor) -> Tensor:
        """(N, slices, H, W) float32 on the device -> the network's output, float32."""
        shape = tuple(tile.shape)
        # Removed here and added below as the last one used. Another thread may release all of them.
        captured = self._captured.pop(shape, None)
        if captured is None:
            with suppress(KeyError):
                while len(self._captured) >= MAX_CAPTURED_SHAPES:
                    self._captured.popitem(last=False)
            captured = self._capture(tile)
        self._captured[shape] = captured
        captured.input.copy_(tile)
        captured.graph.replay()
        # float() copies the output, which the next replay overwrites.
        return captured.output.float()

    def _capture(self, tile: Tensor) -> _Captured:
        flat = half_precision(graph_of(self._network, torch.zeros_like(tile)))
        with torch.cuda.device(tile.device):
            static_input = tile.half().contiguous(memory_format=torch.channels_last)
            # Warm up on a side stream: work on the default stream would break the capture.
            side = torch.cuda.Stream(tile.device)  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP_RUNS):
                    flat(static_input)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # Only calls of this thread are captured: another one prepares the next slab at the same time.
            # The stream is this device's; the default one belongs to the first device that captured.
            with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                static_output: Tensor = flat(static_input)
        return _Captured(graph, static_input, static_output, flat)
