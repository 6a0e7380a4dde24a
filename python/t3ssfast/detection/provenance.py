"""What a result came from: software, models, input, and how the work was done, as plain values for JSON."""

from __future__ import annotations

import hashlib
import os
import platform
from typing import Any

import numpy as np
import torch

from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.io import file_sha256
from t3ssfast.kernels import _native
from t3ssfast.kernels.plan import explain_plan
from t3ssfast.models import LoadedModel, code_version
from t3ssfast.tomogram import Tomogram

__all__ = ["describe_input", "describe_model", "describe_plan", "describe_segmenter", "describe_software"]


def describe_software() -> dict[str, Any]:
    """Versions, and what was built and found."""
    return {
        "t3ssfast": code_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "native": _native.build_info(),
    }


def describe_input(given: object, source: Tomogram) -> dict[str, Any]:
    """What identifies a tomogram.

    Parameters
    ----------
    given
        What the user gave: of a path, the file is what the checksum is of.
    source
        The tomogram it became; where there is no file, the checksum is of its values in C order.
    """
    path = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if path is None:
        digest = hashlib.sha256()
        for section in source.data:
            digest.update(np.ascontiguousarray(section).data)
        checksum = digest.hexdigest()
    else:
        checksum = file_sha256(path)
    return {
        "name": source.name,
        "path": path,
        "shape_zyx": list(source.shape),
        "voxel_size_angstrom": source.voxel_size_angstrom,
        "dtype": str(source.data.dtype),
        "sha256": checksum,
    }


def describe_model(model: LoadedModel | None) -> dict[str, Any] | None:
    """What identifies a model, and what it is for; None where none was used."""
    if model is None:
        return None
    metadata = model.metadata
    return {
        "path": model.path,
        "sha256": model.sha256,
        "voxel_size_angstrom": metadata.voxel_size_angstrom,
        "window_px": metadata.window_px,
        "normalisation": metadata.normalisation.to_dict(),
        "contrast": metadata.contrast,
        "classes": list(metadata.classes),
        "code_version": metadata.code_version,
        "preselect": metadata.preselect,
    }


def describe_segmenter(model: LoadedModel, engine: str) -> dict[str, Any]:
    """As `describe_model`, and what computed its answers, and why that."""
    used = model.engine(engine)
    return {**(describe_model(model) or {}), "engine": used.name, "engine_reason": used.reason}


def describe_plan(
    grid: PreparedTomogram, judge: LoadedModel, mask_fraction: float, device: torch.device
) -> str:
    """How the windows of a tomogram were judged, in words (see `explain_plan`)."""
    size = judge.metadata.window_px
    assert size is not None, "load_model gives every classifier a window"
    # Padded by one window less one voxel, a slice has as many windows as voxels.
    padded = (grid.shape[0], grid.shape[1] + size - 1, grid.shape[2] + size - 1)
    return explain_plan(judge.module, padded, mask_fraction, device, size=size)
