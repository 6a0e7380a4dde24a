"""The JSON document inside a model file."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from t3ssfast.errors import ConfigError, ModelError
from t3ssfast.models.foreign.refusal import quoted
from t3ssfast.models.normalisation import Normalisation

__all__ = [
    "MAX_SLICES",
    "METADATA_NAME",
    "MODEL_KINDS",
    "TARGET_CLASS",
    "VERIFIER_ANSWERS",
    "ModelMetadata",
    "code_version",
    "verifier_answers",
]

METADATA_NAME = "t3ssfast.json"
METADATA_FORMAT = 1
# Keys in files that earlier versions wrote, and their present names.
EARLIER_KEYS = {"kind": "model_kind", "figures": "metrics"}
MODEL_KINDS = ("classifier", "segmenter", "verifier")
TARGET_CLASS = "t3ss"
# Outputs of a verifier after the logits of its kinds: the offset of the centre in voxels, along the axis and
# in the directions of the half-planes at 0 and 90 degrees; the tilt of the axis towards these two directions,
# in radians.
POSE_ANSWERS = ("offset_along", "offset_across", "offset_quarter", "lean_across", "lean_quarter")
MAX_KINDS = 8
# Kinds name files and objects in other programs' formats.
KIND_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,31}")
# Bounds the memory of a batch of half-planes.
MAX_HEIGHT_PX = 128
# Bounds the margin of MAX_SLICES // 2 slices that is read on both sides of a slab.
MAX_SLICES = 15


def verifier_answers(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the outputs of a verifier that tells apart particles of some kinds.

    The probabilities of the kinds, and of none of them, are the softmax of the logits and of 0.
    """
    return (*kinds, *POSE_ANSWERS)


# Outputs of a verifier that knows T3SS alone.
VERIFIER_ANSWERS = verifier_answers((TARGET_CLASS,))


def code_version() -> str:
    """Return the version of the installed package, "unknown" in a bare source tree."""
    try:
        return version("t3ssfast")
    except PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True)
class ModelMetadata:
    """What a model was trained for.

    Parameters
    ----------
    model_kind
        "classifier", "segmenter" or "verifier".
    voxel_size_angstrom
        Voxel size of the training data; None: the model accepts any.
    window_px, window_nm
        Side of a classifier's window, or height of a verifier's half-planes; None for a segmenter.
    contrast
        "dark" (protein dark) or "light".
    classes
        Names of the outputs. A classifier's target class is "t3ss"; a verifier has `verifier_answers`.
    output
        "logits" or "probabilities".
    slices
        Number of consecutive slices in a segmenter's input.
    recipe, code_version, metrics
        Training options, version of t3ssfast at training time, and metrics on held-out data.
    architecture
        Name and options of one of the package's networks, see `models.architectures`; None of any other.
    preselect, calibration
        Plain values of a `detection.preselect.PreselectRule` and an `evaluation.calibration.Calibration`.
    kind_calibrations
        Plain values of the calibrations of a verifier's kinds other than its first, by kind.
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
    kind_calibrations: dict[str, dict[str, Any]] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    architecture: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        def require(valid: bool, name: str, expected: str) -> None:
            if not valid:
                raise ModelError(
                    f"The model's metadata contain {name} = {shown(getattr(self, name))}; it must be "
                    f"{expected}."
                )

        def shown(value: object) -> str:
            return quoted(value if isinstance(value, str) else repr(value))

        def is_integer(value: object, low: int, high: int) -> bool:
            return type(value) is int and low <= value <= high

        require(self.model_kind in MODEL_KINDS, "model_kind", '"classifier", "segmenter" or "verifier"')
        require(
            self.architecture is None or isinstance(self.architecture, dict),
            "architecture",
            "an object or null",
        )
        require(self.contrast in ("dark", "light"), "contrast", '"dark" or "light"')
        require(self.output in ("logits", "probabilities"), "output", '"logits" or "probabilities"')
        for name in ("voxel_size_angstrom", "window_nm"):
            length = getattr(self, name)
            length_valid = length is None or (isinstance(length, (int, float)) and 0 < length < float("inf"))
            require(length_valid, name, "a length above 0 or null")
        window_valid = self.window_px is None or is_integer(self.window_px, 2, 4096)
        require(window_valid, "window_px", "an integer from 2 to 4096 or null")
        slices_valid = is_integer(self.slices, 1, MAX_SLICES) and self.slices % 2 == 1
        require(slices_valid, "slices", f"an odd number from 1 to {MAX_SLICES}")
        if self.model_kind == "verifier":
            height_valid = is_integer(self.window_px, 16, MAX_HEIGHT_PX) and (self.window_px or 0) % 16 == 0
            require(height_valid, "window_px", f"a multiple of 16 from 16 to {MAX_HEIGHT_PX}")
            kinds = self.kinds
            kinds_valid = 1 <= len(set(kinds)) == len(kinds) <= MAX_KINDS
            kinds_valid = kinds_valid and all(KIND_NAME.fullmatch(kind) for kind in kinds)
            expected = f"up to {MAX_KINDS} kinds of particles, and {', '.join(POSE_ANSWERS)}"
            require(kinds_valid and self.classes == verifier_answers(kinds), "classes", expected)
            require(set(self.kind_calibrations) <= set(kinds), "kind_calibrations", "of the verifier's kinds")
            require(self.output == "logits", "output", '"logits"')

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of particles that the model tells apart."""
        return self.classes[: -len(POSE_ANSWERS)] if self.model_kind == "verifier" else (TARGET_CLASS,)

    @property
    def target_index(self) -> int:
        """Index of a classifier's target class: the one named "t3ss", else the last."""
        return self.classes.index(TARGET_CLASS) if TARGET_CLASS in self.classes else -1

    def to_json(self) -> str:
        """Convert to the JSON document of a model file."""
        document = {"format": METADATA_FORMAT, **asdict(self)}
        return json.dumps(document, indent=1, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ModelMetadata:
        """Invert `to_json` or raise ModelError; ignore unknown keys, accept those of earlier versions."""
        try:
            document = json.loads(text)
            if document.get("format", METADATA_FORMAT) > METADATA_FORMAT:
                raise ModelError(
                    f"The model's metadata have format {document['format']:g}, newer than the "
                    f"{METADATA_FORMAT} that this version reads; update t3ssfast."
                )
            named = {EARLIER_KEYS.get(key, key): value for key, value in document.items()}
            known = {key: value for key, value in named.items() if key in cls.__dataclass_fields__}
            if "normalisation" in known:
                known["normalisation"] = Normalisation.from_dict(known["normalisation"])
            if "classes" in known:
                known["classes"] = tuple(str(name) for name in known["classes"])
            return cls(**known)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ConfigError) as error:
            raise ModelError(
                f"The model's metadata cannot be read ({quoted(str(error))}); save the model again with "
                "t3ssfast.models.save_model."
            ) from error
