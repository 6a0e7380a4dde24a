"""Stand-in until the shared helpers arrive."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from t3ssfast import _core


# --------------------------------------------------------------------------------------------- sliding


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
        (P,) float32 on the CPU.
    """

    rows: tuple[tuple[int, ...], ...]
    map_layers: int
    classes: int
    parameters: torch.Tensor


def score_windows(
    images: torch.Tensor,
    size: int,
    program: LayerProgram,
    windows: torch.Tensor | None,
    *,
    threads: int | None = None,
) -> torch.Tensor:
    """Answers of a chain of layers on every window, or on the windows asked for.

    Parameters
    ----------
    images
        (N, H, W) float32, C-contiguous.
    size
        Edge of a window.
    program
        The chain.
    windows
        (M,) int64, ascending flat indices into (N, H-size+1, W-size+1), on the same device; None for all.
    threads
        OpenMP threads; torch's number where None.

    Returns
    -------
    (M, C) float32, or (C, N, H-size+1, W-size+1) where windows is None.
    """
    count, height, width = images.shape
    shape = (count, height - size + 1, width - size + 1)
    if windows is None:
        out = torch.empty((program.classes, *shape), dtype=torch.float32, device=images.device)
        strides = (1, shape[0] * shape[1] * shape[2])
    else:
        out = torch.empty((len(windows), program.classes), dtype=torch.float32, device=images.device)
        strides = (program.classes, 1)
        if len(windows) == 0:  # an empty tensor has no address, which would stand for every window
            return out
    _core.score_windows_cpu(
        images.data_ptr(),
        count,
        height,
        width,
        size,
        program.rows,
        program.map_layers,
        program.parameters.data_ptr(),
        program.parameters.numel(),
        0 if windows is None else windows.data_ptr(),
        0 if windows is None else len(windows),
        out.data_ptr(),
        *strides,
        threads or torch.get_num_threads(),
    )
    return out


def unfold(images: torch.Tensor, size: int, windows: torch.Tensor) -> torch.Tensor:
    """Stand-in."""
    return images.unfold(1, size, 1).unfold(2, size, 1)[
        torch.unravel_index(windows, (images.shape[0], images.shape[1] - size + 1, images.shape[2] - size + 1))
    ]
