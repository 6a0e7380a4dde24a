"""What computes a segmenter's answers, and why that: the fastest there is, held against the network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from t3ssfast.errors import ConfigError, ModelError
from t3ssfast.kernels._native import openvino_version
from t3ssfast.models.engines.cuda_graphs import CudaGraphEngine
from t3ssfast.models.engines.openvino import OpenVinoEngine
from t3ssfast.runtime.memory import is_out_of_memory

__all__ = ["SEGMENTER_ENGINES", "SegmenterEngine"]

# What can compute a segmenter's answers; "auto" is the fastest that is there.
SEGMENTER_ENGINES = ("auto", "torch", "openvino", "cuda-graphs")

# How far a probability may lie from the network's own: float32 in another order, and float16.
FLOAT32_TOLERANCE = 1e-4
FLOAT16_TOLERANCE = 2e-2


class SegmenterEngine:
    """Answers a network's tiles by an engine, and says by which.

    "auto" takes CUDA graphs on a CUDA device, OpenVINO on a CPU where it is installed, else PyTorch. The
    first answer of each shape is held against PyTorch's; an engine that cannot read the network, or differs,
    is given up for PyTorch, and `reason` says so.

    Parameters
    ----------
    network
        TorchScript, frozen, channels last.
    probability
        The network's answers as probabilities; these are compared.
    device
        Where the network is.
    wanted
        One of `types.SEGMENTER_ENGINES`. One that was asked for by name is never replaced.

    Attributes
    ----------
    name
        "torch", "openvino" or "cuda-graphs".
    reason
        Why it is this one, in words.

    Raises
    ------
    ConfigError
        There is no such engine, or not on this device.
    """

    def __init__(
        self,
        network: nn.Module,
        probability: Callable[[Tensor], Tensor],
        device: torch.device,
        wanted: str = "auto",
    ) -> None:
        self._network, self._probability, self._wanted = network, probability, wanted
        self._fast: Callable[[Tensor], Tensor] | None = None
        self._tolerance = FLOAT32_TOLERANCE
        self._checked: set[tuple[int, ...]] = set()
        self.name, self.reason = _choose(wanted, device)
        if self.name == "openvino":
            self._fast = OpenVinoEngine(network)
        elif self.name == "cuda-graphs":
            self._fast, self._tolerance = CudaGraphEngine(network), FLOAT16_TOLERANCE

    def __call__(self, tile: Tensor) -> Tensor:
        """(N, slices, H, W) float32 -> (N, 1, H, W), what the network answers.

        Raises
        ------
        ModelError
            The engine that was asked for by name cannot run this network.
        """
        if self._fast is None:
            return self._by_torch(tile)
        shape = tuple(tile.shape)
        try:
            answer = self._fast(tile)
        # The errors of a runtime that reads a stranger's network are of no common kind.
        except Exception as error:
            # Another engine would answer otherwise by rounding, and need memory too.
            if is_out_of_memory(error):
                raise
            return self._give_up(_gist(error), tile)
        if shape not in self._checked:
            expected = self._by_torch(tile)
            if answer.shape != expected.shape:
                return self._give_up(f"it answers shape {tuple(answer.shape)}", tile)
            apart = float((self._probability(answer) - self._probability(expected)).abs().max())
            # Written so that NaN is no agreement; where both are NaN, the network itself is at fault.
            if not apart <= self._tolerance and bool(torch.isfinite(expected).all()):
                return self._give_up(f"its probabilities differ by {apart:.2g}", tile)
            self._checked.add(shape)
        return answer

    def _by_torch(self, tile: Tensor) -> Tensor:
        answer: Tensor = self._network(tile.contiguous(memory_format=torch.channels_last))
        return answer

    def _give_up(self, why: str, tile: Tensor) -> Tensor:
        if self._wanted != "auto":
            raise ModelError(
                f'The segmenter cannot be run by "{self._wanted}", because {why}; use "auto" or "torch".'
            )
        self.reason = f"{self.name} was tried and given up: {why}"
        self.name, self._fast = "torch", None
        return self._by_torch(tile)


def _choose(wanted: str, device: torch.device) -> tuple[str, str]:
    """Name of an engine, and why."""
    if wanted not in SEGMENTER_ENGINES:
        raise ConfigError(f'The engine is {wanted!r}; give "auto", "torch", "openvino" or "cuda-graphs".')
    found = openvino_version()
    if wanted == "torch":
        return "torch", "asked for"
    if wanted == "cuda-graphs" or (wanted == "auto" and device.type == "cuda"):
        if device.type != "cuda":
            raise ConfigError(f'The engine "cuda-graphs" needs a CUDA device, not {device}; use "auto".')
        return "cuda-graphs", f"float16 on {device}"
    if wanted == "openvino":
        if found is None or device.type != "cpu":
            raise ConfigError(
                f'The engine "openvino" needs a CPU and its package, here {device} and {found or "none"}; '
                "pip install 't3ssfast[openvino]', or use \"auto\"."
            )
        return "openvino", f"version {found}, asked for"
    if device.type != "cpu":
        return "torch", f"there is no faster one for {device}"
    if found is not None:
        return "openvino", f"version {found} is installed"
    return "torch", "OpenVINO, which is faster, is not installed"


def _gist(error: Exception) -> str:
    """What an exception says, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
    # OpenVINO begins with its own source lines and ends with a list of what it could not convert.
    found = [line.removeprefix("-- ") for line in lines if line.startswith("-- ") and "perations" in line]
    return f"{type(error).__name__}: {(found or lines)[0]}"
