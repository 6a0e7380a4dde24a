"""Every default of the training, in one place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from t3ssfast.detection.config import DetectConfig
from t3ssfast.errors import ConfigError
from t3ssfast.models import DEFAULT_HEIGHT_PX, MAX_SLICES
from t3ssfast.models.normalisation import Normalisation

__all__ = [
    "AugmentOptions",
    "ClassifierOptions",
    "SegmenterOptions",
    "TrainOptions",
    "VerifierOptions",
    "make_options",
]


def _require(options: object, ok: bool, name: str, wanted: str) -> None:
    if not ok:
        raise ConfigError(f"{type(options).__name__}.{name} is {getattr(options, name)!r}; give {wanted}.")


@dataclass(frozen=True)
class AugmentOptions:
    """How far a training image may be from the tomogram it was cut from.

    Parameters
    ----------
    scale
        Range of the factor by which lengths grow.
    free_rotation
        Share of the images turned by any angle; the others by a multiple of 90 degrees.
    spectrum
        Standard deviation of the logarithm of a random radial gain, which stands for other defoci,
        envelopes and filters.
    blur_px
        Largest sigma of a Gaussian blur, given to a third of the images.
    noise
        Largest white noise added, in standard deviations of the image, given to half of them.
    contrast
        Range of the factor on the values.
    shift
        Standard deviation of an offset.
    gamma
        Range of the exponent on the magnitude of the values, given to a third of the images.
    clip
        Limit of the values afterwards, as the normalisation's.
    """

    scale: tuple[float, float] = (0.75, 1.35)
    free_rotation: float = 0.7
    spectrum: float = 0.35
    blur_px: float = 1.2
    noise: float = 1.0
    contrast: tuple[float, float] = (0.75, 1.3)
    shift: float = 0.1
    gamma: tuple[float, float] = (0.8, 1.25)
    clip: float = 6.0

    def __post_init__(self) -> None:
        for name in ("scale", "contrast", "gamma"):
            low, high = getattr(self, name)
            _require(self, 0 < low <= high < math.inf, name, "two numbers above 0, the smaller first")
        for name in ("spectrum", "blur_px", "noise", "shift"):
            _require(self, 0 <= getattr(self, name) < math.inf, name, "0 or more")
        _require(self, 0 <= self.free_rotation <= 1, "free_rotation", "a share from 0 to 1")


@dataclass(frozen=True)
class TrainOptions:
    """What both trainings have in common.

    Parameters
    ----------
    seed
        Of everything random: on the CPU, the same seed and data give the same weights.
    steps
        Optimiser steps (of a classifier: in each round).
    steps_per_epoch
        Between two validations and checkpoints.
    batch
        Images a step.
    learning_rate
        Peak of the schedule: a short linear rise, then a cosine down to 1% of it.
    weight_decay
        Of AdamW.
    warmup
        Share of the steps in which the learning rate rises.
    patience
        Stop after so many epochs without a better validation figure; 0 never stops early.
    validation_fraction
        Share of the tomograms kept for validation, at least one; of a single tomogram, this share of its
        last slices.
    voxel_size_angstrom
        Of the model's grid.
    normalisation
        Of the values.
    augment
        Of the training images.
    """

    seed: int = 0
    steps: int = 2_000
    steps_per_epoch: int = 100
    batch: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warmup: float = 0.1
    patience: int = 0
    validation_fraction: float = 0.15
    voxel_size_angstrom: float = 13.6
    normalisation: Normalisation = field(default_factory=Normalisation)
    augment: AugmentOptions = field(default_factory=AugmentOptions)

    def __post_init__(self) -> None:
        for name in ("steps", "steps_per_epoch", "batch"):
            _require(self, getattr(self, name) >= 1, name, "a whole number of at least 1")
        for name in ("seed", "patience"):
            _require(self, getattr(self, name) >= 0, name, "a whole number, 0 or more")
        _require(self, 0 < self.learning_rate < 10, "learning_rate", "a number above 0, such as 0.002")
        _require(self, 0 <= self.weight_decay < 10, "weight_decay", "0 or more, such as 0.0001")
        _require(self, 0 <= self.warmup <= 1, "warmup", "a share from 0 to 1")
        _require(self, 0 < self.validation_fraction < 1, "validation_fraction", "a share between 0 and 1")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a model's metadata."""
        return asdict(self)


@dataclass(frozen=True)
class SegmenterOptions(TrainOptions):
    """Options of `train_segmenter`.

    Parameters
    ----------
    patch_px
        Side of the training patches, a multiple of 16.
    slices
        How many slices in a row it sees, an odd number, to answer for the middle one.
    depth, base
        Of the U-Net.
    membrane_share
        Share of the patches that are centred on membrane.
    inverted_share
        Share of the patches shown with inverted contrast and taught to hold no membrane, so that the contrast
        of a tomogram can be told by the membrane that is seen.
    validation_patches
        Looked at after every epoch.
    """

    patch_px: int = 192
    slices: int = 5
    depth: int = 4
    base: int = 16
    membrane_share: float = 0.7
    inverted_share: float = 0.08
    validation_patches: int = 24

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(
            self,
            self.patch_px >= 2**self.depth and self.patch_px % 2**self.depth == 0,
            "patch_px",
            f"a multiple of {2**self.depth}",
        )
        _require(
            self, self.slices in range(1, MAX_SLICES + 1, 2), "slices", f"an odd number up to {MAX_SLICES}"
        )
        for name in ("membrane_share", "inverted_share"):
            _require(self, 0 <= getattr(self, name) <= 1, name, "a share from 0 to 1")
        _require(self, self.validation_patches >= 1, "validation_patches", "at least 1")


@dataclass(frozen=True)
class ClassifierOptions(TrainOptions):
    """Options of `train_classifier`.

    Parameters
    ----------
    window_px
        Side of the window.
    channels, hidden
        Widths of the LeNet.
    rounds
        Rounds of hard-negative mining, after a first round on random negatives.
    positive_share
        Share of the positives in a batch.
    hard_share
        Share of the mined ones among the negatives of a batch, once there are any.
    jitter_nm
        In the plane, how far a positive window's centre may be from the particle's.
    jitter_z_nm
        The same along z.
    negative_distance_nm
        A negative window's centre is farther than this from every particle.
    search_distance_nm
        Random negatives are drawn from within this distance of the membrane, where one is given; mined ones
        also from what it encloses.
    elsewhere_share
        Share of the random negatives drawn from anywhere.
    negatives_per_tomogram, mined_per_tomogram
        Random negatives, and false positives of each round.
    mined_slices
        Slices of each tomogram that a round of mining looks at.
    mined_score
        From which score on a window counts as a false positive.
    """

    steps: int = 1_000
    batch: int = 256
    augment: AugmentOptions = field(default_factory=lambda: AugmentOptions(scale=(0.88, 1.14), noise=0.8))
    window_px: int = 50
    channels: tuple[int, int] = (8, 16)
    hidden: tuple[int, int] = (120, 84)
    rounds: int = 2
    positive_share: float = 0.3
    hard_share: float = 0.5
    jitter_nm: float = 2.7
    jitter_z_nm: float = 7.0
    negative_distance_nm: float = 13.0
    search_distance_nm: float = DetectConfig.search_distance_nm
    elsewhere_share: float = 0.3
    negatives_per_tomogram: int = 1_500
    mined_per_tomogram: int = 400
    mined_slices: int = 24
    mined_score: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("positive_share", "hard_share", "elsewhere_share", "mined_score"):
            _require(self, 0 <= getattr(self, name) <= 1, name, "a share from 0 to 1")
        for name in ("jitter_nm", "jitter_z_nm", "negative_distance_nm", "search_distance_nm"):
            _require(self, 0 <= getattr(self, name) < math.inf, name, "0 or more nanometres")
        for name in ("negatives_per_tomogram", "mined_per_tomogram", "mined_slices"):
            _require(self, getattr(self, name) >= 1, name, "a whole number of at least 1")
        _require(self, self.rounds >= 0, "rounds", "a whole number, 0 or more")
        _require(self, self.window_px >= 16, "window_px", "at least 16 pixels")


@dataclass(frozen=True)
class VerifierOptions(TrainOptions):
    """Options of `train_verifier`.

    Parameters
    ----------
    height_px
        How far along its axis to look at a candidate; half as far across.
    channels, hidden
        Widths of the network.
    positive_share
        Share of the T3SS in a batch.
    jitter_nm, tilt_degrees
        By how much a picked T3SS is looked at from beside its centre (standard deviation along each axis) and
        off its axis (at most, each way), as a detection would find it. Candidates have errors of their own;
        they get half as much.
    far_share, far_degrees
        This share is looked at up to so far off the axis instead, so that a look along a wrong one says where
        the right one is.
    stretch
        Range of the factor by which a candidate is longer along its axis, for its width, than it was: other
        species have other proportions.
    profile
        Standard deviation of the logarithm of a random smooth gain over the half-planes, the same all round:
        other species' parts are more or less dense.
    hit_distance_nm, negative_distance_nm
        Candidates no farther than the one from a T3SS are it, those farther than the other from every T3SS
        are false.
    negatives_per_tomogram
        At most so many false candidates of a tomogram, the highest scores first.
    offset_weight
        Of the error of the centre (in voxels, Huber's), beside the cross-entropy of the answer.
    lean_weight
        Of the error of the axis (in radians, Huber's), likewise.
    """

    steps: int = 1_200
    batch: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    augment: AugmentOptions = field(default_factory=lambda: AugmentOptions(scale=(0.9, 1.12), noise=0.8))
    height_px: int = DEFAULT_HEIGHT_PX
    channels: tuple[int, int, int, int] = (16, 32, 48, 64)
    hidden: int = 64
    positive_share: float = 0.4
    jitter_nm: float = 1.6
    tilt_degrees: float = 14.0
    far_share: float = 0.5
    far_degrees: float = 60.0
    stretch: tuple[float, float] = (0.8, 1.25)
    profile: float = 0.3
    hit_distance_nm: float = 8.0
    negative_distance_nm: float = 13.0
    negatives_per_tomogram: int = 24
    offset_weight: float = 0.1
    lean_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self, 0 < self.positive_share < 1, "positive_share", "a share between 0 and 1")
        for name in ("jitter_nm", "hit_distance_nm", "negative_distance_nm"):
            _require(self, 0 <= getattr(self, name) < math.inf, name, "0 or more nanometres")
        for name in ("tilt_degrees", "far_degrees"):
            _require(self, 0 <= getattr(self, name) < 90, name, "an angle from 0 to below 90")
        _require(self, 0 <= self.far_share <= 1, "far_share", "a share from 0 to 1")
        low, high = self.stretch
        _require(self, 0 < low <= high < math.inf, "stretch", "two numbers above 0, the smaller first")
        _require(self, 0 <= self.profile < math.inf, "profile", "0 or more")
        _require(self, self.negatives_per_tomogram >= 1, "negatives_per_tomogram", "at least 1")
        for name in ("offset_weight", "lean_weight"):
            _require(self, 0 <= getattr(self, name) < math.inf, name, "0 or more")


Options = TypeVar("Options", bound=TrainOptions)


def make_options(kind: type[Options], given: Mapping[str, Any]) -> Options:
    """Options of a kind from keywords; an unknown one is refused by name.

    Raises
    ------
    ConfigError
        An option does not exist or has a value that cannot be used.
    """
    names = [f.name for f in fields(kind)]
    for name in given:
        if name not in names:
            raise ConfigError(f"There is no option {name!r}; choose from {', '.join(sorted(names))}.")
    try:
        return kind(**given)
    except TypeError as error:
        raise ConfigError(
            f"An option has a value of the wrong type ({error}); see {kind.__name__}."
        ) from error
