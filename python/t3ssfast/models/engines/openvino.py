"""A segmenter run by OpenVINO, where that extra is installed."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from t3ssfast.models.engines.flatten import flatten_network
from t3ssfast.models.torchscript import quiet_torchscript

__all__ = ["OpenVinoEngine"]

# Compiled networks kept at a time, each with its activations: for a tomogram's tiles and for its contrast.
KEPT_SHAPES = 2


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Keep OpenVINO from reporting over the network, and from writing into the home folder, on its import.

    It does without its telemetry package where that cannot be imported.
    """
    name = "openvino_telemetry"
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before


@cache
def _openvino() -> ModuleType:
    with _without_telemetry():
        import openvino
        import openvino.frontend.pytorch.ts_decoder
    module: ModuleType = openvino
    return module


class OpenVinoEngine:
    """Answers of a network by way of OpenVINO, in float32, on as many threads as PyTorch has.

    A network is compiled for each shape that it is asked. No file is written: there is no compile cache.

    Parameters
    ----------
    network
        TorchScript, frozen, on the CPU.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._requests: OrderedDict[tuple[tuple[int, ...], int], Any] = OrderedDict()

    def __call__(self, tile: Tensor) -> Tensor:
        """(N, slices, H, W) float32 -> the network's answer."""
        request = self._request(tuple(tile.shape))
        request.infer([tile.contiguous().numpy()], share_inputs=True, share_outputs=True)
        # What OpenVINO wrote is overwritten by its next answer.
        return torch.from_numpy(request.get_output_tensor(0).data).clone()

    def _request(self, shape: tuple[int, ...]) -> Any:
        key = shape, torch.get_num_threads()
        if key not in self._requests:
            while len(self._requests) >= KEPT_SHAPES:
                self._requests.popitem(last=False)
            self._requests[key] = self._compile(*key)
        self._requests.move_to_end(key)
        return self._requests[key]

    def _compile(self, shape: tuple[int, ...], threads: int) -> Any:
        openvino = _openvino()
        flat = flatten_network(self._network, shape)
        with quiet_torchscript(), torch.inference_mode(False), torch.no_grad():
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                flat, torch.zeros(shape), check_trace=False
            )
        # The decoder belongs to Python: it must outlive the conversion.
        decoder = openvino.frontend.pytorch.ts_decoder.TorchScriptPythonDecoder(traced)
        frontend = openvino.frontend.FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
        model.reshape(openvino.PartialShape(list(shape)))
        compiled = openvino.Core().compile_model(
            model,
            "CPU",
            {
                # Left to itself it computes in bfloat16 or float16 where the processor has them.
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": 1,
                # Threads that are pinned to cores stand still where another program has the core.
                "ENABLE_CPU_PINNING": False,
            },
        )
        return compiled.create_infer_request()
