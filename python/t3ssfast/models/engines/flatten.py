"""Conversion of TorchScript to a flat graph of tensor operations, which other runtimes can read."""

from __future__ import annotations

import torch
from torch import fx, nn
from torch._decomp import get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from t3ssfast.models.torchscript import quiet_torchscript

__all__ = ["flatten_network"]


def flatten_network(network: nn.Module, shape: tuple[int, ...]) -> fx.GraphModule:
    """Trace a network in evaluation mode for one input shape; any exception of the tracer is passed on.

    Control flow that depends on the input is recorded as it ran for zeros; compare results with the network.
    """
    device = next((t.device for t in (*network.parameters(), *network.buffers())), torch.device("cpu"))
    # Batch normalisation that freezing could not fold becomes plain arithmetic.
    decompositions = get_decompositions([torch.ops.aten.native_batch_norm])

    def run(image: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = network(image)
        return output

    # Tracing needs ordinary tensors, and single operations instead of TorchScript's fused ones.
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        quiet_torchscript(),
        torch.jit.optimized_execution(False),  # type: ignore[attr-defined]
    ):
        graph: fx.GraphModule = make_fx(
            run,
            decomposition_table=decompositions,  # type: ignore[arg-type]
            tracing_mode="real",
        )(torch.zeros(shape, device=device))
    # Decompositions convert values to the dtype they compute in, even if they have it already.
    for node in graph.graph.find_nodes(op="call_function", target=torch.ops.aten._to_copy.default):
        value = node.args[0]
        if node.kwargs.keys() == {"dtype"} and node.kwargs["dtype"] == _dtype(graph, value):
            node.replace_all_uses_with(value)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _dtype(graph: fx.GraphModule, node: fx.Node) -> torch.dtype:
    value = getattr(graph, str(node.target)) if node.op == "get_attr" else node.meta["val"]
    dtype: torch.dtype = value.dtype
    return dtype
