"""Selection of the inference engine for a segmenter, with a check against PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from t3ssfast.errors import ConfigError, ModelError
from t3ssfast.kernels._native import openvino_version
from t3ssfast.models.architectures import NETWORKS
from t3ssfast.models.engines.bfloat16 import BFloat16Engine, can_run_bfloat16, has_bfloat16_instructions
from t3ssfast.models.engines.cuda_graphs import CudaGraphEngine
from t3ssfast.models.engines.int8 import Int8Engine, has_int8_instructions
from t3ssfast.models.engines.openvino import OpenVinoEngine
from t3ssfast.models.frozen import fuse
from t3ssfast.models.unet import UNet
from t3ssfast.runtime.memory import is_out_of_memory

__all__ = ["SEGMENTER_ENGINES", "SegmenterEngine"]

# "auto" selects the fastest one available.
SEGMENTER_ENGINES = ("auto", "torch", "torch-bfloat16", "torch-int8", "openvino", "cuda-graphs")

# Largest difference of a probability from PyTorch's result in float32.
FLOAT32_TOLERANCE = 1e-4
FLOAT16_TOLERANCE = 2e-2
# Its numbers have 8 bits of precision, those of float16 11. The bundled segmenter's differences are below
# 0.013 on noise, and 0.0005 in the mean.
BFLOAT16_TOLERANCE = 6e-2
# The bundled segmenter's differences are below 0.08 on simulated tomograms, and 0.0005 in the mean.
INT8_TOLERANCE = 0.2


class SegmenterEngine:
    """Run a segmenter with the fastest engine that gives the same results as PyTorch.

    "auto" selects CUDA graphs on a CUDA device. On a CPU and for a network of the package's own, it selects
    bfloat16 where the processor has AMX, and integers of 8 bits where it has AVX512-VNNI; else OpenVINO if
    it is installed, else PyTorch in float32. The first output of each shape is compared with PyTorch's in
    float32. An engine that fails or differs is replaced by PyTorch, and `reason` (part of the provenance)
    records why; one requested by name is never replaced.

    `tolerance` is the largest difference of a probability from PyTorch's in float32 that is let pass.

    `network` is a frozen network, channels last; `probability` converts its outputs to the values compared.
    `trained` is the network before it was frozen, with its normalisation.
    """

    def __init__(
        self,
        network: nn.Module,
        probability: Callable[[Tensor], Tensor],
        device: torch.device,
        requested: str = "auto",
        trained: nn.Module | None = None,
    ) -> None:
        own = type(network) in NETWORKS.values()
        # TorchScript fuses in place, which the other engines could not read.
        self._network = fuse(network, device) if own else network
        self._probability, self._requested = probability, requested
        self._on_cpu = device.type == "cpu"
        self._engine: Callable[[Tensor], Tensor] | None = None
        self.tolerance = FLOAT32_TOLERANCE
        self._checked_shapes: set[tuple[int, ...]] = set()
        self.name, self.reason = _select(requested, device, own=own, is_unet=isinstance(trained, UNet))
        if self.name == "openvino":
            self._engine = OpenVinoEngine(network)
        elif self.name == "torch-bfloat16":
            self._engine, self.tolerance = BFloat16Engine(network), BFLOAT16_TOLERANCE
        elif self.name == "torch-int8":
            assert isinstance(trained, UNet), "others are not selected"
            self._engine, self.tolerance = Int8Engine(trained), INT8_TOLERANCE
        elif self.name == "cuda-graphs":
            self._engine, self.tolerance = CudaGraphEngine(network), FLOAT16_TOLERANCE

    @property
    def is_reentrant(self) -> bool:
        """Whether several threads may run it at a time; each then computes with its share of the threads."""
        return self.name in ("torch", "torch-bfloat16", "torch-int8") and self._on_cpu

    def __call__(self, tile: Tensor) -> Tensor:
        """(N, slices, H, W) float32 -> (N, 1, H, W), the network's output.

        ModelError: an engine requested by name cannot run this network.
        """
        if self._engine is None:
            return self._run_torch(tile)
        shape = tuple(tile.shape)
        try:
            output = self._engine(tile)
        # Runtimes raise exceptions of many types for networks that they do not support.
        except Exception as error:
            # PyTorch would need memory too, and its results differ by rounding.
            if is_out_of_memory(error):
                raise
            return self._fall_back(_summary(error), tile)
        if shape not in self._checked_shapes:
            expected = self._run_torch(tile)
            if output.shape != expected.shape:
                return self._fall_back(f"it answers shape {tuple(output.shape)}", tile)
            difference = float((self._probability(output) - self._probability(expected)).abs().max())
            # NaN compares as a difference, unless the network itself gives NaN.
            if not difference <= self.tolerance and bool(torch.isfinite(expected).all()):
                return self._fall_back(f"its probabilities differ by {difference:.2g}", tile)
            self._checked_shapes.add(shape)
        return output

    def _run_torch(self, tile: Tensor) -> Tensor:
        output: Tensor = self._network(tile.contiguous(memory_format=torch.channels_last))
        return output

    def _fall_back(self, why: str, tile: Tensor) -> Tensor:
        if self._requested != "auto":
            raise ModelError(
                f'The segmenter cannot be run by "{self._requested}", because {why}; use "auto" or "torch".'
            )
        self.reason = f"{self.name} was tried and given up: {why}"
        self.name, self._engine = "torch", None
        return self._run_torch(tile)


def _select(requested: str, device: torch.device, *, own: bool, is_unet: bool) -> tuple[str, str]:
    """Return the engine's name and the reason for it, which is written to provenance and must not change."""
    if requested not in SEGMENTER_ENGINES:
        names = ", ".join(f'"{name}"' for name in SEGMENTER_ENGINES)
        raise ConfigError(f"The engine is {requested!r}; give one of {names}.")
    if requested == "torch":
        return "torch", "asked for"
    if requested == "cuda-graphs" or (requested == "auto" and device.type == "cuda"):
        if device.type != "cuda":
            raise ConfigError(f'The engine "cuda-graphs" needs a CUDA device, not {device}; use "auto".')
        return "cuda-graphs", f"float16 on {device}"
    if requested == "torch-bfloat16":
        if device.type != "cpu" or not own:
            raise _unfit(requested, device, fits=own)
        if not can_run_bfloat16():
            raise ConfigError(
                'The engine "torch-bfloat16" needs a processor with AVX512 or AVX-NE-CONVERT, which this one '
                'lacks; use "auto".'
            )
        return "torch-bfloat16", "asked for"
    if requested == "torch-int8":
        if device.type != "cpu" or not is_unet:
            raise _unfit(requested, device, fits=is_unet)
        return "torch-int8", "asked for"
    if requested == "auto" and device.type == "cpu":
        if own and has_bfloat16_instructions():
            return "torch-bfloat16", "this processor has AMX, instructions for bfloat16"
        if is_unet and has_int8_instructions():
            return "torch-int8", "this processor has AVX512-VNNI, instructions for integers of 8 bits"
    installed = openvino_version()
    if requested == "openvino":
        if installed is None or device.type != "cpu":
            raise ConfigError(
                f'The engine "openvino" needs a CPU and the package openvino; the device is {device}, the '
                f"package {installed or 'not installed'}: pip install 't3ssfast[openvino]', or use \"auto\"."
            )
        return "openvino", f"version {installed}, asked for"
    if device.type != "cpu":
        return "torch", f"there is no faster one for {device}"
    if installed is not None:
        return "openvino", f"version {installed} is installed"
    return "torch", "OpenVINO, which is faster, is not installed"


def _unfit(requested: str, device: torch.device, *, fits: bool) -> ConfigError:
    return ConfigError(
        f'The engine "{requested}" needs a CPU and a U-Net of t3ssfast; the device is {device}, the network '
        f'{"one" if fits else "another"}: use "auto".'
    )


def _summary(error: Exception) -> str:
    """Reduce an exception to one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
    # OpenVINO's messages start with its own source lines and end with a list of unsupported operations.
    unsupported = [line[3:] for line in lines if line.startswith("-- ") and "perations" in line]
    return f"{type(error).__name__}: {(unsupported or lines)[0]}"
