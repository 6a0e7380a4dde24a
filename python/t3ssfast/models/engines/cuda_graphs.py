"""A segmenter on a CUDA device: half precision, channels last, one captured graph for each shape of tile."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, fx, nn

from t3ssfast.models.engines.flatten import flatten_network

__all__ = ["CudaGraphEngine", "half_precision"]

# Captured graphs kept at a time, each with its activations.
KEPT_SHAPES = 2
# Runs before a capture, in which cuDNN chooses its algorithms and libraries allocate what they need.
WARM_UP_RUNS = 3


def half_precision(graph: fx.GraphModule) -> fx.GraphModule:
    """The same graph with its floating-point constants in float16, those of four axes channels last.

    Batch normalisation must have been folded in before: its scales were multiplied in float32.
    """
    for node in graph.graph.find_nodes(op="get_attr"):
        value = getattr(graph, node.target)
        if isinstance(value, Tensor) and value.is_floating_point():
            form = torch.channels_last if value.ndim == 4 else torch.contiguous_format
            setattr(graph, node.target, value.half().contiguous(memory_format=form))
    return graph


class CudaGraphEngine:
    """Answers of a network in float16 by replaying captured CUDA graphs.

    Parameters
    ----------
    network
        TorchScript, frozen, on a CUDA device.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._captured: OrderedDict[tuple[int, ...], tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = (
            OrderedDict()
        )

    def __call__(self, tile: Tensor) -> Tensor:
        """(N, slices, H, W) float32 on the device -> the network's answer, float32."""
        shape = tuple(tile.shape)
        if shape not in self._captured:
            while len(self._captured) >= KEPT_SHAPES:
                self._captured.popitem(last=False)
            self._captured[shape] = self._capture(tile)
        self._captured.move_to_end(shape)
        graph, given, answer = self._captured[shape]
        given.copy_(tile)
        graph.replay()
        # The graph's next run overwrites its answer; float() copies it.
        return answer.float()

    def _capture(self, tile: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        flat = half_precision(flatten_network(self._network, tuple(tile.shape)))
        with torch.cuda.device(tile.device):
            given = tile.half().contiguous(memory_format=torch.channels_last)
            # A capture must not meet work of the default stream, so the warm-up runs beside it.
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP_RUNS):
                    flat(given)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # Of this thread alone: meanwhile another one prepares the next slab, and allocates and waits.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                answer: Tensor = flat(given)
        return graph, given, answer
