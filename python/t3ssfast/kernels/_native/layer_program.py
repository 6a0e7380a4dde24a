"""A chain of layers as the kernels of sliding windows read it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from t3ssfast.kernels._native.build import SIMD, best_level
from t3ssfast.kernels._native.extension import core

__all__ = ["LayerProgram", "prepared"]


@dataclass(frozen=True)
class LayerProgram:
    """A chain of layers as the native kernel reads it (csrc/core/layers.h).

    Parameters
    ----------
    rows
        One a layer: kind, channels in and out, kernel y and x, step y and x, first parameter, parameters.
    map_layers
        How many of them work on feature maps; the next one is linear and begins the head.
    classes
        Answers a window.
    parameters
        (P,) float32.
    least_of_nine
        Windows asked for in nine that lie together from which a CPU does all nine together.
    prepared
        Weights as the CPU kernel reads them, made when first used.
    """

    rows: tuple[tuple[int, ...], ...]
    map_layers: int
    classes: int
    parameters: torch.Tensor
    least_of_nine: int = 10
    prepared: dict[tuple[int, int, int], core.PreparedProgram] = field(
        default_factory=dict, repr=False, compare=False
    )


def prepared(program: LayerProgram, size: int, least_of_nine: int, simd: str | None) -> core.PreparedProgram:
    """The program's weights as the CPU kernel reads them, kept with the program."""
    level = best_level() if simd is None else SIMD.index(simd)
    key = (size, least_of_nine, level)
    if key not in program.prepared:
        parameters = program.parameters
        program.prepared[key] = core.prepare_program(
            program.rows,
            program.map_layers,
            parameters.data_ptr(),
            parameters.numel(),
            size,
            least_of_nine,
            level,
        )
    return program.prepared[key]
