"""A network as the plain list of tensor operations that it runs for one shape of input.

TorchScript holds loops, lists and calls of submodules, which other runtimes cannot read. Run once under
`make_fx`, only the operations that reach the dispatcher are left, with the weights as constants.
"""

from __future__ import annotations

import torch
from torch import fx, nn
from torch._decomp import get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from t3ssfast.models.torchscript import quiet_torchscript

__all__ = ["flatten_network"]


def flatten_network(network: nn.Module, shape: tuple[int, ...]) -> fx.GraphModule:
    """What `network` computes for inputs of one shape, as a flat graph.

    Batch normalisation that freezing could not fold into a convolution becomes plain arithmetic. What
    depends on the input's values, and not only on its shape, is recorded as it went for this input: the
    answer must be held against the network's.

    Parameters
    ----------
    network
        In evaluation mode, on one device.
    shape
        Of its input.

    Raises
    ------
    Exception
        Whatever the network or the recording raises; there is no list of what can go wrong in a stranger's
        network.
    """
    device = next((t.device for t in (*network.parameters(), *network.buffers())), torch.device("cpu"))
    decompositions = get_decompositions([torch.ops.aten.native_batch_norm])

    def run(image: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = network(image)
        return answer

    # Recording needs ordinary tensors, and operations one by one instead of TorchScript's fused ones.
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
    for node in graph.graph.find_nodes(op="call_function", target=torch.ops.aten._to_copy.default):
        # Decompositions convert to the type that they compute in, even what is of that type already.
        value = node.args[0]
        if node.kwargs.keys() == {"dtype"} and node.kwargs["dtype"] == _dtype(graph, value):
            node.replace_all_uses_with(value)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _dtype(graph: fx.GraphModule, node: fx.Node) -> torch.dtype:
    """Type of what a node gives."""
    value = getattr(graph, str(node.target)) if node.op == "get_attr" else node.meta["val"]
    kind: torch.dtype = value.dtype
    return kind
