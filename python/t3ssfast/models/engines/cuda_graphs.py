"""Segmenter inference on a CUDA device: float16, channels last, one captured graph per tile shape."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, fx, nn

from t3ssfast.models.engines.flatten import flatten_network

__all__ = ["CudaGraphEngine", "half_precision"]

# Captured graphs kept at a time; each holds its activations.
MAX_CAPTURED_SHAPES = 2
# Runs before a capture, in which cuDNN chooses algorithms and libraries allocate their workspaces.
WARM_UP_RUNS = 3


def half_precision(graph: fx.GraphModule) -> fx.GraphModule:
    """Convert a graph's floating-point constants to float16, in place; fold batch normalisation before."""
    for node in graph.graph.find_nodes(op="get_attr"):
        value = getattr(graph, node.target)
        if isinstance(value, Tensor) and value.is_floating_point():
            memory_format = torch.channels_last if value.ndim == 4 else torch.contiguous_format
            setattr(graph, node.target, value.half().contiguous(memory_format=memory_format))
    return graph


class CudaGraphEngine:
    """Run frozen TorchScript on a CUDA device in float16 by replaying captured CUDA graphs."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._captured: OrderedDict[tuple[int, ...], tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = (
            OrderedDict()
        )

    def __call__(self, tile: Tensor) -> Tensor:
        """(N, slices, H, W) float32 on the device -> the network's output, float32."""
        shape = tuple(tile.shape)
        if shape not in self._captured:
            while len(self._captured) >= MAX_CAPTURED_SHAPES:
                self._captured.popitem(last=False)
            self._captured[shape] = self._capture(tile)
        self._captured.move_to_end(shape)
        graph, static_input, static_output = self._captured[shape]
        static_input.copy_(tile)
        graph.replay()
        # float() copies the output, which the next replay overwrites.
        return static_output.float()

    def _capture(self, tile: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        flat = half_precision(flatten_network(self._network, tuple(tile.shape)))
        with torch.cuda.device(tile.device):
            static_input = tile.half().contiguous(memory_format=torch.channels_last)
            # Warm up on a side stream: work on the default stream would break the capture.
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP_RUNS):
                    flat(static_input)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # Only calls of this thread are captured: another one prepares the next slab at the same time.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                static_output: Tensor = flat(static_input)
        return graph, static_input, static_output
