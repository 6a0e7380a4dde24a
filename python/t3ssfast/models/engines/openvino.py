"""Segmenter inference with OpenVINO, an optional dependency."""

from __future__ import annotations

import sys
from collections import OrderedDict
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from t3ssfast.kernels.graph import graph_of
from t3ssfast.models.torchscript import quiet_torchscript

__all__ = ["OpenVinoEngine"]

# Compiled networks kept at a time, each with its activations: one for the tiles of a tomogram, one for its
# contrast measurement.
MAX_COMPILED_SHAPES = 2


@cache
def _openvino() -> Any:
    """Import OpenVINO without its telemetry, which uses the network and writes to the home folder."""
    name = "openvino_telemetry"
    loaded = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        import openvino
        import openvino.frontend.pytorch.ts_decoder
    finally:
        del sys.modules[name]
        if loaded is not None:
            sys.modules[name] = loaded
    return openvino


class OpenVinoEngine:
    """Run a frozen network with OpenVINO in float32, on as many threads as PyTorch uses."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._requests: OrderedDict[tuple[tuple[int, ...], int], Any] = OrderedDict()

    def __call__(self, tile: Tensor) -> Tensor:
        """(N, slices, H, W) float32 -> the network's output."""
        request = self._request(tuple(tile.shape))
        request.infer([tile.contiguous().numpy()], share_inputs=True, share_outputs=True)
        # The next inference overwrites the output tensor.
        return torch.from_numpy(request.get_output_tensor(0).data).clone()

    def _request(self, shape: tuple[int, ...]) -> Any:
        key = shape, torch.get_num_threads()
        if key not in self._requests:
            while len(self._requests) >= MAX_COMPILED_SHAPES:
                self._requests.popitem(last=False)
            self._requests[key] = self._compile(*key)
        self._requests.move_to_end(key)
        return self._requests[key]

    def _compile(self, shape: tuple[int, ...], threads: int) -> Any:
        openvino = _openvino()
        flat = graph_of(self._network, torch.zeros(shape))
        with quiet_torchscript(), torch.inference_mode(False), torch.no_grad():
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                flat, torch.zeros(shape), check_trace=False
            )
        # The decoder is a Python object and must outlive the conversion.
        decoder = openvino.frontend.pytorch.ts_decoder.TorchScriptPythonDecoder(traced)
        frontend = openvino.frontend.FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
        model.reshape(openvino.PartialShape(list(shape)))
        compiled = openvino.Core().compile_model(
            model,
            "CPU",
            {
                # The default is bfloat16 or float16 on processors that support them.
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": 1,
                # A pinned thread stalls while another program uses its core.
                "ENABLE_CPU_PINNING": False,
            },
        )
        return compiled.create_infer_request()
