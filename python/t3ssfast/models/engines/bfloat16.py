"""Segmenter inference in bfloat16 on processors with AMX."""

from __future__ import annotations

import copy
from functools import cache

import torch
from torch import Tensor, nn

from t3ssfast.models.frozen import fuse

__all__ = ["BFloat16Engine", "can_run_bfloat16", "has_bfloat16_instructions"]


@cache
def has_bfloat16_instructions() -> bool:
    """Return whether PyTorch multiplies matrices of bfloat16 with AMX.

    With AVX512-BF16 alone, a Xeon takes 1.5 times as long as in float32; without it, up to a hundred times.
    """
    # Of PyTorch 2.12 and later.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    # PyTorch can be told to use an older instruction set.
    used = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return used and bool(capabilities.get("amx_bf16", False))


def can_run_bfloat16() -> bool:
    """Return whether oneDNN convolves in bfloat16 on this processor, however slowly."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class BFloat16Engine:
    """Run a frozen network of the package's own on a CPU, with weights and activations in bfloat16."""

    def __init__(self, network: nn.Module) -> None:
        self._network = fuse(copy.deepcopy(network).to(torch.bfloat16), torch.device("cpu"))

    def __call__(self, tile: Tensor) -> Tensor:
        """(N, slices, H, W) float32 -> the network's output, float32."""
        image = tile.to(torch.bfloat16, memory_format=torch.channels_last)
        output: Tensor = self._network(image)
        return output.float()
