"""A network as a straight list of PyTorch's operators: what the sliding plan and other runtimes read."""

from __future__ import annotations

import operator
from contextlib import ExitStack
from typing import Any, Protocol, runtime_checkable

import torch
from torch import fx
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["graph_of", "operator_name"]

aten = torch.ops.aten
# Normalisations by running statistics, which runtimes know by their general name.
NORMALISATIONS = ("native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit_no_training")


@runtime_checkable
class _HasGraph(Protocol):
    """A module that was made from a graph."""

    def operators_for(self, shape: tuple[int, ...]) -> fx.GraphModule: ...


def graph_of(module: torch.nn.Module, example: torch.Tensor) -> fx.GraphModule:
    """Return the operators of a network in evaluation mode for inputs of an example's shape and device.

    Every tensor has `meta["shape"]` and `meta["dtype"]`. What does not depend on the input is a constant. A
    module that was not made from a graph is run once on the example, and its operators are recorded; control
    flow that depends on values is recorded as it ran.
    """
    if isinstance(module, _HasGraph):
        return module.operators_for(tuple(example.shape))
    recorder = _Recorder(example)
    with ExitStack() as context:
        context.enter_context(torch.inference_mode(False))
        context.enter_context(torch.no_grad())
        if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
            # Without the optimiser, TorchScript runs its operators one by one, as they are written.
            context.enter_context(torch.jit.optimized_execution(False))  # type: ignore[attr-defined]
        context.enter_context(recorder)
        output = module(example)
    return recorder.finish(output)


def operator_name(node: fx.Node) -> str:
    """Return the name of a node's operator, "relu"; the in-place `relu_` is the same operator."""
    name: str = node.target._schema.name.removeprefix("aten::")  # type: ignore[union-attr]
    # Names such as __and__ are not in-place.
    return name if name.endswith("__") else name.rstrip("_")


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records every operator that depends on the example."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False, so that torch does not spend a second importing its compiler, which is not used."""
        return False

    def __init__(self, example: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = fx.Graph()
        self.constants: dict[str, torch.Tensor] = {}
        self.nodes: dict[int, fx.Node] = {}
        # Kept, so that no other tensor gets the id of one that is gone.
        self.alive: list[torch.Tensor] = []
        self.remember(example, self.graph.placeholder("image"))

    def remember(self, tensor: torch.Tensor, node: fx.Node) -> None:
        node.meta |= {"shape": tuple(tensor.shape), "dtype": tensor.dtype}
        self.nodes[id(tensor)] = node
        self.alive.append(tensor)

    def node_of(self, tensor: torch.Tensor) -> fx.Node:
        """Return the node of a tensor; an unknown one is a constant."""
        if id(tensor) not in self.nodes:
            name = f"constant_{len(self.constants)}"
            self.constants[name] = tensor.detach()
            self.remember(tensor, self.graph.get_attr(name))
        return self.nodes[id(tensor)]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        values = [*args, *kwargs.values()]
        tensors = [t for v in values for t in (v if isinstance(v, list | tuple) else [v])]
        if any(isinstance(t, torch.Tensor) and self.depends(t) for t in tensors):
            self.record(func, args, kwargs, result)
        return result

    def depends(self, tensor: torch.Tensor) -> bool:
        node = self.nodes.get(id(tensor))
        return node is not None and node.op != "get_attr"

    def record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        if func._schema.name.removeprefix("aten::") in NORMALISATIONS:
            named = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
            if not named.get("training", False):
                names = ("input", "weight", "bias", "running_mean", "running_var")
                epsilon = named.get("eps", named.get("epsilon"))
                args = (*(named[name] for name in names), False, named["momentum"], epsilon, False)
                func, kwargs, result = aten.batch_norm.default, {}, result[0]

        def convert(value: Any) -> Any:
            return self.node_of(value) if isinstance(value, torch.Tensor) else value

        node = self.graph.call_function(
            func,
            tuple(list(map(convert, v)) if isinstance(v, list | tuple) else convert(v) for v in args),
            {key: convert(value) for key, value in kwargs.items()},
        )
        if isinstance(result, torch.Tensor):
            self.remember(result, node)
        elif isinstance(result, list | tuple):
            for index, part in enumerate(result):
                if isinstance(part, torch.Tensor):
                    self.remember(part, self.graph.call_function(operator.getitem, (node, index)))

    def finish(self, output: Any) -> fx.GraphModule:
        if isinstance(output, torch.Tensor):
            self.graph.output(self.node_of(output))
        else:
            self.graph.output(tuple(map(self.node_of, output)))
        return fx.GraphModule(self.constants, self.graph)
