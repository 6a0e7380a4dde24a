"""Provenance: software, models, input and options of a detection, as plain values for JSON."""

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
    """Versions of the software, and how the native kernels were built."""
    return {
        "t3ssfast": code_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "native": _native.build_info(),
    }


def describe_input(given: object, source: Tomogram) -> dict[str, Any]:
    """Identify a tomogram.

    Parameters
    ----------
    given
        As given to `detect`. The checksum is of the file where this is a path.
    source
        The opened tomogram. The checksum is of its values in C order where there is no file.
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
    """Identify a model, and describe what it needs; None where none was used."""
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
    """As `describe_model`, with the engine that ran it and why it was chosen."""
    used = model.engine(engine)
    return {**(describe_model(model) or {}), "engine": used.name, "engine_reason": used.reason}


def describe_plan(
    grid: PreparedTomogram, classifier: LoadedModel, mask_fraction: float, device: torch.device
) -> str:
    """Describe in words how the windows of a tomogram were classified (see `explain_plan`)."""
    size = classifier.metadata.window_px
    assert size is not None, "load_model gives every classifier a window"
    # Padded by one pixel less than a window, a slice has as many windows as pixels.
    padded = (grid.shape[0], grid.shape[1] + size - 1, grid.shape[2] + size - 1)
    return explain_plan(classifier.module, padded, mask_fraction, device, size=size)
