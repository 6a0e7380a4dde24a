"""Provenance: software, models, input and options of a detection as plain values, and its identity."""

from __future__ import annotations

import hashlib
import os
import platform
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from t3ssfast.detection.inputs import DetectionInputs, window_of
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.segment_slice import tile_side
from t3ssfast.io import file_sha256
from t3ssfast.io.checksum_cache import ChecksumCache
from t3ssfast.kernels import _native
from t3ssfast.kernels.plan import explain_plan
from t3ssfast.models import LoadedModel, code_version
from t3ssfast.runtime.checkpoint import key_of
from t3ssfast.runtime.memory import retry_on_oom
from t3ssfast.runtime.progress import Stages
from t3ssfast.tomogram import StrPath, Tomogram

__all__ = [
    "Identification",
    "Identity",
    "describe_input",
    "describe_model",
    "describe_plan",
    "describe_segmenter",
    "describe_software",
    "has_content_of",
]

# Options that decide about time and memory alone.
OPTIONS_WITHOUT_EFFECT = ("threads", "slab_slices", "memory_budget_bytes")


@dataclass(frozen=True)
class Identity:
    """What decides about the result of a detection.

    `key` is the SHA-256 of the contents of tomogram, mask and models, of the options that have an effect, and
    of the version of this package; `exact_key` also of what changes rounding.
    """

    tomogram: dict[str, Any]
    membrane: dict[str, Any] | None
    search_mask: dict[str, Any] | None
    key: str
    exact_key: str


class Identification:
    """Context manager that computes the identity of a detection in a thread, beside its first steps.

    It reads the whole tomogram, unless its checksum is in the cache. Leaving the block ends it.
    """

    def __init__(
        self, inputs: DetectionInputs, stages: Stages, checksums: ChecksumCache | None = None
    ) -> None:
        self._stages = stages
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(1, "t3ssfast-checksum")
        self._identity = self._pool.submit(_identify, inputs, checksums, self._go_on)

    def __enter__(self) -> Identification:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._pool.shutdown(wait=True)

    def result(self) -> Identity:
        """Wait for the identity; only this wait counts as a stage."""
        with self._stages("checksum"):
            return self._identity.result()

    def _go_on(self) -> None:
        if self._ended.is_set():
            raise CancelledError


@retry_on_oom("reading the tomogram")
def _identify(
    inputs: DetectionInputs, checksums: ChecksumCache | None, before_chunk: Callable[[], None]
) -> Identity:
    sha256 = file_sha256 if checksums is None else checksums.sha256
    sha256_of = partial(sha256, before_chunk=before_chunk)
    tomogram = describe_input(inputs.source, inputs.tomogram, sha256_of, before_chunk)
    membrane = _describe_mask(inputs.membrane, inputs.mask, inputs.tomogram, sha256_of)
    search_mask = _describe_mask(inputs.search_mask, inputs.region, inputs.tomogram, sha256_of)
    inputs.files.check()
    software = describe_software()
    native = software["native"]
    options = inputs.config.to_dict()
    content = {
        "input": {name: value for name, value in tomogram.items() if name != "path"},
        "membrane": None if membrane is None else membrane["sha256"],
        "models": [None if model is None else model.sha256 for model in inputs.models],
        "config": {name: options[name] for name in options if name not in OPTIONS_WITHOUT_EFFECT},
        "version": software["t3ssfast"],
    }
    if search_mask is not None:
        content["search_mask"] = search_mask["sha256"]
    device = inputs.device
    rounding = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": native["simd"],
        "libraries": [software["torch"], software["numpy"], native["openvino"]],
        "tile": tile_side(inputs.config),
    }
    return Identity(tomogram, membrane, search_mask, key_of(content), key_of(content, rounding))


def _describe_mask(
    given: object, mask: npt.NDArray[Any] | None, tomogram: Tomogram, sha256_of: Callable[[StrPath], str]
) -> dict[str, Any] | None:
    if mask is None:
        return None
    return describe_input(given, Tomogram(mask, tomogram.voxel_size_angstrom, tomogram.name), sha256_of)


def has_content_of(inputs: DetectionInputs, identity: Identity, path: Path) -> bool:
    """Whether a file that a detection reads still has the content that was identified."""
    for given, described in (
        (inputs.source, identity.tomogram),
        (inputs.membrane, identity.membrane),
        (inputs.search_mask, identity.search_mask),
    ):
        if isinstance(given, str | os.PathLike) and Path(given) == path and described is not None:
            return bool(file_sha256(path) == described["sha256"])
    # The array of a memory-mapped file: what of it is used cannot be told from the file.
    return True


def describe_software() -> dict[str, Any]:
    """Versions of the software, and how the native kernels were built."""
    return {
        "t3ssfast": code_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "native": _native.build_info(),
    }


def describe_input(
    given: object,
    source: Tomogram,
    sha256_of: Callable[[StrPath], str] = file_sha256,
    before_slice: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Identify a tomogram, opened from what was given to `detect`.

    The checksum is of the file where a path was given (`sha256_of`), otherwise of the values in C order;
    `before_slice` may raise an exception to end it.
    """
    path = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if path is None:
        digest = hashlib.sha256()
        for section in source.data:
            before_slice()
            digest.update(np.ascontiguousarray(section).data)
    return {
        "name": source.name,
        "path": path,
        "shape_zyx": list(source.shape),
        "voxel_size_angstrom": source.voxel_size_angstrom,
        "dtype": str(source.data.dtype),
        "sha256": digest.hexdigest() if path is None else sha256_of(path),
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
    size = window_of(classifier)
    # Padded by one pixel less than a window, a slice has as many windows as pixels.
    padded = (grid.shape[0], grid.shape[1] + size - 1, grid.shape[2] + size - 1)
    return explain_plan(classifier.module, padded, mask_fraction, device, size=size)
