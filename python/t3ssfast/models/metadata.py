"""What a model file says about itself: the JSON document inside it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib import metadata as package_metadata
from typing import Any

from t3ssfast.errors import ConfigError, ModelError
from t3ssfast.models.normalisation import Normalisation

__all__ = [
    "KINDS",
    "METADATA_NAME",
    "MOST_SLICES",
    "TARGET_CLASS",
    "VERIFIER_ANSWERS",
    "ModelMetadata",
    "code_version",
]

METADATA_NAME = "t3ssfast.json"
METADATA_FORMAT = 1
# Keys of files that earlier versions wrote.
EARLIER_KEYS = {"kind": "model_kind", "figures": "metrics"}
KINDS = ("classifier", "segmenter", "verifier")
TARGET_CLASS = "t3ss"
# What a verifier answers about a candidate: a logit; voxels from where it was to its centre, along the axis
# and in the directions of the first half-plane and the one a quarter turn on; and by how much its axis leans
# towards these two, in radians.
VERIFIER_ANSWERS = (
    TARGET_CLASS,
    *("offset_along", "offset_across", "offset_quarter"),
    *("lean_across", "lean_quarter"),
)
# A box is probed and held in memory many at a time.
MOST_HEIGHT_PX = 128
# A slab is read with half as many more on both sides.
MOST_SLICES = 15


def code_version() -> str:
    """Version of the installed package, "unknown" where it runs from a bare source tree."""
    try:
        return package_metadata.version("t3ssfast")
    except package_metadata.PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True)
class ModelMetadata:
    """What a model file says about itself.

    Parameters
    ----------
    model_kind
        "classifier", "segmenter" or "verifier".
    voxel_size_angstrom
        Of the grid that the model was trained on; None: the tomogram's own.
    window_px, window_nm
        Side of a classifier's window, or how far along its axis a verifier looks; None for a segmenter.
    normalisation
        How values are prepared.
    contrast
        "dark" (protein dark) or "light".
    classes
        Names of the answers; a classifier's target is "t3ss". A verifier's are "t3ss" (a logit) and the three
        offsets of the centre in voxels.
    output
        "logits" or "probabilities".
    recipe
        Options of the training.
    code_version
        Of t3ssfast at training time.
    slices
        How many slices in a row a segmenter sees, to answer for the middle one.
    preselect
        Rule by which a classifier's windows may be ruled out beforehand, as plain values; see preselect.py.
    calibration
        What a classifier's or a verifier's scores are worth, as plain values; see calibrate.py.
    metrics
        What was measured on held-out data.
    """

    model_kind: str
    voxel_size_angstrom: float | None = None
    window_px: int | None = None
    window_nm: float | None = None
    normalisation: Normalisation = field(default_factory=Normalisation)
    contrast: str = "dark"
    classes: tuple[str, ...] = ()
    output: str = "logits"
    slices: int = 1
    recipe: dict[str, Any] = field(default_factory=dict)
    code_version: str = field(default_factory=code_version)
    preselect: dict[str, Any] | None = None
    calibration: dict[str, Any] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        def require(ok: bool, name: str, wanted: str) -> None:
            if not ok:
                raise ModelError(
                    f"The model's metadata say {name} = {getattr(self, name)!r}; it must be {wanted}."
                )

        def length_or_none(value: object) -> bool:
            return value is None or (isinstance(value, (int, float)) and 0 < value < float("inf"))

        require(self.model_kind in KINDS, "model_kind", '"classifier", "segmenter" or "verifier"')
        require(self.contrast in ("dark", "light"), "contrast", '"dark" or "light"')
        require(self.output in ("logits", "probabilities"), "output", '"logits" or "probabilities"')
        require(length_or_none(self.voxel_size_angstrom), "voxel_size_angstrom", "a length above 0 or null")
        require(length_or_none(self.window_nm), "window_nm", "a length above 0 or null")
        require(
            self.window_px is None or (isinstance(self.window_px, int) and 2 <= self.window_px <= 4096),
            "window_px",
            "a whole number from 2 to 4096 or null",
        )
        require(
            isinstance(self.slices, int) and 1 <= self.slices <= MOST_SLICES and self.slices % 2 == 1,
            "slices",
            f"an odd number from 1 to {MOST_SLICES}",
        )
        if self.model_kind == "verifier":
            height = self.window_px
            fits = height is not None and 16 <= height <= MOST_HEIGHT_PX and height % 16 == 0
            require(fits, "window_px", f"a multiple of 16 from 16 to {MOST_HEIGHT_PX}")
            require(self.classes == VERIFIER_ANSWERS, "classes", ", ".join(VERIFIER_ANSWERS))
            require(self.output == "logits", "output", '"logits"')

    @property
    def target_index(self) -> int:
        """Which of a classifier's answers is the T3SS: the class named so, else the last one."""
        return self.classes.index(TARGET_CLASS) if TARGET_CLASS in self.classes else -1

    def to_json(self) -> str:
        """The JSON document that goes into the file."""
        document: dict[str, Any] = {"format": METADATA_FORMAT}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            document[name] = value.to_dict() if isinstance(value, Normalisation) else value
        return json.dumps(document, indent=1, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ModelMetadata:
        """The inverse of `to_json`.

        Raises
        ------
        ModelError
            The document is not one, is of a later format, or holds an impossible value.
        """
        try:
            document = json.loads(text)
            if document.get("format", METADATA_FORMAT) > METADATA_FORMAT:
                raise ModelError(
                    f"The model's metadata have format {document['format']}, newer than the "
                    f"{METADATA_FORMAT} that this version reads; update t3ssfast."
                )
            named = {EARLIER_KEYS.get(key, key): value for key, value in document.items()}
            known = {k: v for k, v in named.items() if k in cls.__dataclass_fields__}
            if "normalisation" in known:
                known["normalisation"] = Normalisation.from_dict(known["normalisation"])
            if "classes" in known:
                known["classes"] = tuple(str(c) for c in known["classes"])
            return cls(**known)
        except ModelError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ConfigError) as error:
            raise ModelError(
                f"The model's metadata cannot be read ({error}); save the model again with "
                "t3ssfast.models.save_model."
            ) from error
