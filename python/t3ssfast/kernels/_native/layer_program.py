"""A chain of layers in the form that the native kernels read."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from t3ssfast.kernels._native.build import SIMD, best_simd_level
from t3ssfast.kernels._native.extension import core, current_device

__all__ = ["LayerProgram"]


@dataclass(frozen=True)
class LayerProgram:
    """A chain of layers in the form that the native kernels read (csrc/core/layers.h).

    Parameters
    ----------
    rows
        One row per layer: kind, channels in and out, kernel y and x, step y and x, index of the first
        parameter, number of parameters.
    map_layers
        Number of layers on feature maps; the next layer is fully connected.
    classes
        Number of scores per window.
    parameters
        (P,) float32.
    winograd_min_windows
        Minimum number of requested windows per 3 x 3 block for the Winograd path on a CPU; above 9 the path
        is never used.
    """

    rows: tuple[tuple[int, ...], ...]
    map_layers: int
    classes: int
    parameters: torch.Tensor
    winograd_min_windows: int = 10
    _prepared: dict[tuple[int, int, int, int], core.PreparedProgram] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    # By index of the device and handle of the stream.
    _on_device: dict[tuple[int, int], torch.Tensor] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def on_device(self, device: torch.device) -> torch.Tensor:
        """Return the parameters on a device; those of the last device and stream are kept.

        Memory is freed in the order of the stream that it was allocated for, so each stream gets its own.
        """
        with current_device(device) as launch:
            kept = self._on_device.get(launch)
            if kept is None:
                kept = self.parameters.to(device)
                self._on_device.clear()
                self._on_device[launch] = kept
        return kept

    def native(self, parameters: torch.Tensor) -> tuple[tuple[tuple[int, ...], ...], int, int, int]:
        """Return the argument of the native kernels for a copy of the parameters on their device."""
        return self.rows, self.map_layers, parameters.data_ptr(), parameters.numel()

    def prepare(
        self, size: int, winograd_min_windows: int | None, simd: str | None, stride: int = 1
    ) -> core.PreparedProgram:
        """Return the weights in the memory layout of a CPU kernel; computed once and kept.

        Parameters
        ----------
        size
            Window edge, pixels.
        winograd_min_windows
            Replaces the program's own number unless None.
        simd
            One of `SIMD`; the best one where None.
        stride
            Distance between windows, pixels. That of the result, `window_stride`, divides it: the largest for
            which feature maps need not be computed between the windows.
        """
        min_windows = self.winograd_min_windows if winograd_min_windows is None else winograd_min_windows
        level = best_simd_level() if simd is None else SIMD.index(simd)
        key = (size, min_windows, level, stride)
        if key not in self._prepared:
            self._prepared[key] = core.prepare_program(self.native(self.parameters), *key)
        return self._prepared[key]
