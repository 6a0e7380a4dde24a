"""Networks prepared for fast inference: constant weights, folded normalisation, channels last."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, fx, nn

from t3ssfast.kernels.graph import graph_of
from t3ssfast.models.foreign import TranslatedModel
from t3ssfast.models.torchscript import copy_module, quiet_torchscript
from t3ssfast.runtime.memory import is_out_of_memory

__all__ = ["freeze", "fuse"]

# Whole tiles and the remainders at the edges of a tomogram.
MAX_SHAPES = 6


class _FrozenByShape(nn.Module):
    """A translated network, frozen anew for each input shape, since its graph is of one shape."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self._source, self._device = network, device
        self._frozen: OrderedDict[tuple[int, ...], nn.Module] = OrderedDict()

    def forward(self, image: Tensor) -> Tensor:
        """(N, slices, H, W) float32 -> the network's output."""
        output: Tensor = self._for(tuple(image.shape))(image)
        return output

    def operators_for(self, shape: tuple[int, ...]) -> fx.GraphModule:
        """Return the graph of the frozen network, which cannot be frozen while operators are recorded."""
        return graph_of(self._for(shape), torch.zeros(shape, device=self._device))

    def _for(self, shape: tuple[int, ...]) -> nn.Module:
        if shape not in self._frozen:
            while len(self._frozen) >= MAX_SHAPES:
                self._frozen.popitem(last=False)
            with quiet_torchscript(), torch.inference_mode(False), torch.no_grad():
                example = torch.zeros(shape, device=self._device)
                graph = graph_of(self._source, example)
                traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                    graph, example, check_trace=False
                )
                self._frozen[shape] = torch.jit.freeze(traced.eval())
        self._frozen.move_to_end(shape)
        return self._frozen[shape]


def freeze(module: nn.Module, device: torch.device) -> nn.Module:
    """Return a copy of a network with constant weights, folded batch normalisation and channels last.

    1.8 times as fast as the network itself, measured on a U-Net of base 16 and a 512 x 512 slice. A module
    that TorchScript cannot compile, such as one of torch.export, is copied without this.
    """
    with quiet_torchscript():
        module = copy_module(module, device)
        # Applies to parameters with four axes; the others have no channel order.
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if any(isinstance(part, TranslatedModel) for part in module.modules()):
            return _FrozenByShape(module, device)
        try:
            if not isinstance(module, torch.jit.ScriptModule):
                module = torch.jit.script(module)
            frozen: nn.Module = torch.jit.freeze(module)
            return frozen
        except (RuntimeError, torch.jit.frontend.FrontendError) as error:
            if is_out_of_memory(error):
                raise
            # Frozen already, or not scriptable: the module itself gives the same results.
            return module


def fuse(frozen: nn.Module, device: torch.device) -> nn.Module:
    """Return a frozen network that oneDNN fused on a CPU: 2.3 times as fast, measured on a verifier."""
    if device.type != "cpu" or not isinstance(frozen, torch.jit.ScriptModule):
        return frozen
    with quiet_torchscript():
        fused: nn.Module = torch.jit.optimize_for_inference(frozen)
        return fused
