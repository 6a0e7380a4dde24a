"""Options of the three trainings, with their defaults and bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
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

Value = TypeVar("Value")
# How the classifier's negatives are drawn.
NEGATIVES = ("statistics", "random")
# A condition, and its description for the error message.
Bound = tuple[Callable[[Any], bool], str]

AT_LEAST_0: Bound = (lambda v: v >= 0, "a whole number, 0 or more")
AT_LEAST_1: Bound = (lambda v: v >= 1, "a whole number of at least 1")
FRACTION: Bound = (lambda v: 0 <= v <= 1, "a fraction from 0 to 1")
OPEN_FRACTION: Bound = (lambda v: 0 < v < 1, "a fraction between 0 and 1")
NON_NEGATIVE: Bound = (lambda v: 0 <= v < math.inf, "0 or more")
LENGTH: Bound = (lambda v: 0 <= v < math.inf, "0 or more nanometres")
ANGLE: Bound = (lambda v: 0 <= v < 90, "an angle from 0 to below 90 degrees")
RANGE: Bound = (lambda v: 0 < v[0] <= v[1] < math.inf, "two numbers above 0, the smaller first")
LEARNING_RATE: Bound = (lambda v: 0 < v < 10, "a number above 0, such as 0.002")
WEIGHT_DECAY: Bound = (lambda v: 0 <= v < 10, "0 or more, such as 0.0001")


def _bounded(default: Value, bound: Bound) -> Value:
    value: Value = field(default=default, metadata={"bound": bound})
    return value


class _Bounded:
    """Base of dataclasses whose fields carry bounds."""

    def __post_init__(self) -> None:
        for option in fields(self):  # type: ignore[arg-type]
            if "bound" in option.metadata:
                accepts, wanted = option.metadata["bound"]
                self._require(accepts(getattr(self, option.name)), option.name, wanted)

    def _require(self, valid: bool, name: str, wanted: str) -> None:
        if not valid:
            raise ConfigError(f"{type(self).__name__}.{name} is {getattr(self, name)!r}; give {wanted}.")


@dataclass(frozen=True)
class AugmentOptions(_Bounded):
    """Augmentation of training images.

    Parameters
    ----------
    scale
        Range of the scale factor.
    free_rotation
        Fraction of the images rotated by any angle; the others are rotated by a multiple of 90 degrees.
    spectrum
        Standard deviation of the logarithm of a random radial gain: other defoci, envelopes and filters.
    blur_px
        Maximum sigma of a Gaussian blur, applied to a third of the images.
    noise
        Maximum standard deviation of white noise, relative to the image's; added to half of the images.
    contrast
        Range of the factor applied to the values.
    shift
        Standard deviation of the offset added to the values.
    gamma
        Range of the exponent applied to the magnitude of the values of a third of the images.
    clip
        Maximum magnitude of the augmented values, the same as of the normalisation.
    """

    scale: tuple[float, float] = _bounded((0.75, 1.35), RANGE)
    free_rotation: float = _bounded(0.7, FRACTION)
    spectrum: float = _bounded(0.35, NON_NEGATIVE)
    blur_px: float = _bounded(1.2, NON_NEGATIVE)
    noise: float = _bounded(1.0, NON_NEGATIVE)
    contrast: tuple[float, float] = _bounded((0.75, 1.3), RANGE)
    shift: float = _bounded(0.1, NON_NEGATIVE)
    gamma: tuple[float, float] = _bounded((0.8, 1.25), RANGE)
    clip: float = 6.0


@dataclass(frozen=True)
class TrainOptions(_Bounded):
    """Options common to the three trainings.

    Parameters
    ----------
    seed
        Random seed. On the CPU, the same seed and data give the same weights.
    steps
        Optimiser steps; of a classifier, in each round.
    steps_per_epoch
        Steps between two validations, each followed by a checkpoint.
    batch
        Images per step.
    learning_rate
        Peak learning rate. It rises linearly to the peak, then falls to 1% of it along a cosine.
    weight_decay
        Weight decay of AdamW.
    warmup
        Fraction of the steps in which the learning rate rises.
    patience
        Stop after this many epochs without a better validation metric; 0 never stops early.
    validation_fraction
        Fraction of the tomograms held out for validation, at least one; of a single one, of its last slices.
    voxel_size_angstrom
        Voxel size of the model.
    normalisation
        Normalisation of the tomograms.
    augment
        Augmentation of the training images.
    """

    seed: int = _bounded(0, AT_LEAST_0)
    steps: int = _bounded(2_000, AT_LEAST_1)
    steps_per_epoch: int = _bounded(100, AT_LEAST_1)
    batch: int = _bounded(8, AT_LEAST_1)
    learning_rate: float = _bounded(2e-3, LEARNING_RATE)
    weight_decay: float = _bounded(1e-4, WEIGHT_DECAY)
    warmup: float = _bounded(0.1, FRACTION)
    patience: int = _bounded(0, AT_LEAST_0)
    validation_fraction: float = _bounded(0.15, OPEN_FRACTION)
    voxel_size_angstrom: float = 13.6
    normalisation: Normalisation = field(default_factory=Normalisation)
    augment: AugmentOptions = field(default_factory=AugmentOptions)


@dataclass(frozen=True)
class SegmenterOptions(TrainOptions):
    """Options of `train_segmenter`.

    Parameters
    ----------
    patch_px
        Side of the training patches, a multiple of 2**depth.
    slices
        Number of adjacent input slices, odd; the output is for the middle one.
    depth, base
        Depth and base width of the U-Net.
    membrane_share
        Fraction of the patches drawn near membrane.
    inverted_share
        Fraction of the patches with inverted contrast and an empty target. The model then finds more membrane
        in tomograms of the right contrast, which is how `detect` recognises it.
    validation_patches
        Number of patches to validate on.
    """

    patch_px: int = 192
    slices: int = 5
    depth: int = 4
    base: int = 16
    membrane_share: float = _bounded(0.7, FRACTION)
    inverted_share: float = _bounded(0.08, FRACTION)
    validation_patches: int = _bounded(24, AT_LEAST_1)

    def __post_init__(self) -> None:
        super().__post_init__()
        multiple = 2**self.depth
        whole = self.patch_px >= multiple and self.patch_px % multiple == 0
        self._require(whole, "patch_px", f"a multiple of {multiple}")
        odd = self.slices in range(1, MAX_SLICES + 1, 2)
        self._require(odd, "slices", f"an odd number up to {MAX_SLICES}")


@dataclass(frozen=True)
class ClassifierOptions(TrainOptions):
    """Options of `train_classifier`.

    Parameters
    ----------
    window_px
        Side of the window.
    channels, hidden
        Widths of the LeNet's convolutions and fully connected layers.
    rounds
        Rounds of hard-negative mining, after a first round with random negatives.
    positive_share
        Fraction of positives in a batch.
    hard_share
        Fraction of hard negatives among the negatives of a batch.
    jitter_nm, jitter_z_nm
        Maximum distance of a positive window's centre from the particle's centre, in the plane and along z.
    negative_distance_nm
        Minimum distance of a negative window's centre from every particle.
    search_distance_nm
        Maximum distance of random negatives from the membrane, where one is given. Mined negatives can also
        lie in the volume that the membrane encloses.
    elsewhere_share
        Fraction of the random negatives drawn from the whole tomogram.
    negatives
        How negatives near the membrane are drawn: "random", or by "statistics", in strata of how much their
        window statistics resemble those of the windows on particles.
    like_share, unlike_share
        Fractions of the negatives near the membrane drawn by "statistics" from the tenth that resembles the
        particles most, and from the twentieth that resembles them least; the others are drawn from all.
    negatives_per_tomogram, mined_per_tomogram
        Number of negatives before mining, and maximum number of mined negatives in each round.
    mined_slices
        Slices of each tomogram searched in a round of mining.
    mined_score
        Minimum score of a mined negative.
    """

    steps: int = _bounded(1_000, AT_LEAST_1)
    batch: int = _bounded(256, AT_LEAST_1)
    augment: AugmentOptions = field(default_factory=lambda: AugmentOptions(scale=(0.88, 1.14), noise=0.8))
    window_px: int = _bounded(50, (lambda v: v >= 16, "at least 16 pixels"))
    channels: tuple[int, int] = (8, 16)
    hidden: tuple[int, int] = (120, 84)
    rounds: int = _bounded(2, AT_LEAST_0)
    positive_share: float = _bounded(0.3, FRACTION)
    hard_share: float = _bounded(0.5, FRACTION)
    jitter_nm: float = _bounded(2.7, LENGTH)
    jitter_z_nm: float = _bounded(7.0, LENGTH)
    negative_distance_nm: float = _bounded(13.0, LENGTH)
    search_distance_nm: float = _bounded(DetectConfig.search_distance_nm, LENGTH)
    elsewhere_share: float = _bounded(0.3, FRACTION)
    negatives: str = _bounded("statistics", (NEGATIVES.__contains__, " or ".join(map(repr, NEGATIVES))))
    like_share: float = _bounded(0.5, FRACTION)
    unlike_share: float = _bounded(0.1, FRACTION)
    negatives_per_tomogram: int = _bounded(1_500, AT_LEAST_1)
    mined_per_tomogram: int = _bounded(400, AT_LEAST_1)
    mined_slices: int = _bounded(24, AT_LEAST_1)
    mined_score: float = _bounded(0.2, FRACTION)


@dataclass(frozen=True)
class VerifierOptions(TrainOptions):
    """Options of `train_verifier`.

    Parameters
    ----------
    kinds
        Kinds of particles to tell apart, the classifier's first. Picks of other kinds are negatives.
    kinds_only
        Train only the layers that tell the further kinds from the first; the answers about the first kind,
        and centres and axes, remain those of the verifier to start from.
    height_px
        Height of the cylindrical sections along the axis of a candidate; their radius is half of it.
    channels, hidden
        Widths of the network.
    positive_share
        Fraction of particles in a batch, as many of each kind.
    jitter_nm, tilt_degrees
        Pose errors applied to picked T3SS: standard deviation of the centre along each axis, and maximum tilt
        of the axis. Detected candidates have pose errors of their own and get half as much.
    far_share, far_degrees
        Fraction of the examples tilted by up to `far_degrees` instead, to learn to correct a wrong axis.
    stretch
        Range of the factor of length over width of a particle: other species have other proportions.
    profile
        Standard deviation of the logarithm of a random smooth gain over the cylindrical sections, the same at
        every azimuth: the parts of other species differ in density.
    hit_distance_nm, negative_distance_nm
        A candidate within `hit_distance_nm` of a T3SS is true; one farther than `negative_distance_nm` from
        every T3SS is false; others are not used.
    negatives_per_tomogram
        Maximum number of false candidates per tomogram; those with the highest scores are used.
    offset_weight, lean_weight
        Weights of the Huber losses of the centre (voxels) and of the axis (radians), relative to the
        cross-entropy.
    """

    kinds: tuple[str, ...] = ("t3ss",)
    kinds_only: bool = False
    steps: int = _bounded(1_200, AT_LEAST_1)
    batch: int = _bounded(32, AT_LEAST_1)
    weight_decay: float = _bounded(1e-2, WEIGHT_DECAY)
    augment: AugmentOptions = field(default_factory=lambda: AugmentOptions(scale=(0.9, 1.12), noise=0.8))
    height_px: int = DEFAULT_HEIGHT_PX
    channels: tuple[int, int, int, int] = (16, 32, 48, 64)
    hidden: int = 64
    positive_share: float = _bounded(0.4, OPEN_FRACTION)
    jitter_nm: float = _bounded(1.6, LENGTH)
    tilt_degrees: float = _bounded(14.0, ANGLE)
    far_share: float = _bounded(0.5, FRACTION)
    far_degrees: float = _bounded(60.0, ANGLE)
    stretch: tuple[float, float] = _bounded((0.8, 1.25), RANGE)
    profile: float = _bounded(0.3, NON_NEGATIVE)
    hit_distance_nm: float = _bounded(8.0, LENGTH)
    negative_distance_nm: float = _bounded(13.0, LENGTH)
    negatives_per_tomogram: int = _bounded(24, AT_LEAST_1)
    offset_weight: float = _bounded(0.1, NON_NEGATIVE)
    lean_weight: float = _bounded(1.0, NON_NEGATIVE)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "kinds", tuple(self.kinds))
        distinct = 1 <= len(set(self.kinds)) == len(self.kinds)
        self._require(distinct, "kinds", "distinct names of kinds of particles")
        alone = self.kinds_only and len(self.kinds) == 1
        self._require(not alone, "kinds_only", "False, or two or more kinds")


Options = TypeVar("Options", bound=TrainOptions)


def make_options(kind: type[Options], given: Mapping[str, Any]) -> Options:
    """Make options from keyword arguments; ConfigError if one does not exist or is out of bounds."""
    names = sorted(f.name for f in fields(kind))
    for name in given:
        if name not in names:
            raise ConfigError(f"There is no option {name!r}; choose from {', '.join(names)}.")
    try:
        return kind(**given)
    except TypeError as error:
        raise ConfigError(
            f"An option has a value of the wrong type ({error}); see {kind.__name__}."
        ) from error
