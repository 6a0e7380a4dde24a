"""Conditions of microscopes and of processing, under which the bundled models are measured.

Every condition changes a simulated tomogram in one respect that users meet: the physics of the imaging, the
reconstruction, or what was done to the tomogram afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError
from t3ssfast.simulation.simulate import simulate
from t3ssfast.tomogram import Tomogram
from t3ssfast.training.few_shot import UNSEEN_DOMAIN

__all__ = ["CONDITIONS", "SHAPE", "SPECIMEN", "Condition", "Sample", "make_sample"]

Volume = npt.NDArray[np.float32]

# (z, y, x) voxels of 13.6 A: 65 x 196 x 196 nm, the middle of a small cell with about seven T3SS.
SHAPE = (48, 144, 144)
VOXEL_SIZE_ANGSTROM = 13.6
# Of every condition: T3SS of varying architecture and completeness, and many look-alikes; more noise than by
# default, so that the conditions make a difference.
SPECIMEN: dict[str, Any] = {
    "cell_radius_nm": 75.0,
    "cell_flattening": 0.8,
    "t3ss_per_cell": 7,
    "t3ss_variety": 0.8,
    "t3ss_size_spread": 0.08,
    "t3ss_density_spread": 0.2,
    "needle_missing_fraction": 0.3,
    "platform_missing_fraction": 0.3,
    "flagellar_motors_per_cell": 3,
    "secretins_per_cell": 5,
    "docked_ribosomes_per_cell": 12,
    "crowding_fraction": 0.2,
    "noise_scale": 1.4,
}
# Seeds of the specimens; no other use has them.
FIRST_SEED = 77_000_000


@dataclass(frozen=True)
class Sample:
    """A tomogram under a condition, and its ground truth in voxels of that tomogram."""

    tomogram: Tomogram
    truth: Candidates
    distractors: Candidates


def _unchanged(sample: Sample) -> Sample:
    return sample


@dataclass(frozen=True)
class Condition:
    """A condition: fields of `Physics`, and what is done to the sample afterwards.

    `pickable`: whether a person could still pick the T3SS.
    """

    name: str
    physics: dict[str, Any] = field(default_factory=dict)
    process: Callable[[Sample], Sample] = _unchanged
    pickable: bool = True

    @property
    def has_process(self) -> bool:
        """Whether anything is done to the sample afterwards."""
        return self.process is not _unchanged


def make_sample(condition: Condition, index: int) -> Sample:
    """Simulate tomogram `index` of a condition; the specimen is the same in all conditions."""
    made = simulate(FIRST_SEED + index, SHAPE, VOXEL_SIZE_ANGSTROM, **(SPECIMEN | condition.physics))
    return condition.process(Sample(made.tomogram, made.truth, made.distractors))


def _changed(change: Callable[[Volume], npt.NDArray[Any]]) -> Callable[[Sample], Sample]:
    """A process that changes grey values, and neither the grid nor the truth."""

    def process(sample: Sample) -> Sample:
        volume = np.ascontiguousarray(change(np.asarray(sample.tomogram.data, np.float32)))
        tomogram = Tomogram(volume, sample.tomogram.voxel_size_angstrom, sample.tomogram.name)
        return Sample(tomogram, sample.truth, sample.distractors)

    return process


def _regrid(
    sample: Sample,
    volume: npt.NDArray[Any],
    voxel_size_angstrom: float,
    centre: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
    normal: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] = lambda vectors: vectors,
) -> Sample:
    """The sample on another grid: its volume, and functions that carry positions and directions over."""
    shape, name = volume.shape, sample.tomogram.name

    def moved(particles: Candidates) -> Candidates:
        return Candidates(
            centre(particles.centre_zyx),
            particles.score,
            normal(particles.normal_zyx),
            voxel_size_angstrom,
            shape,
            name,
            particles.kind,
        )

    tomogram = Tomogram(np.ascontiguousarray(volume, np.float32), voxel_size_angstrom, name)
    return Sample(tomogram, moved(sample.truth), moved(sample.distractors))


def _non_local_means(volume: Volume) -> Volume:
    restoration = _scikit_image()
    # Robust, from the differences of neighbours, in which the specimen hardly shows.
    sigma = float(np.median(np.abs(np.diff(volume, axis=1)))) / (0.6745 * np.sqrt(2))
    return np.asarray(
        restoration.denoise_nl_means(volume, patch_size=3, patch_distance=3, h=0.8 * sigma, sigma=sigma)
    )


def _total_variation(volume: Volume) -> Volume:
    return np.asarray(_scikit_image().denoise_tv_chambolle(volume, weight=0.6, max_num_iter=40))


def _scikit_image() -> Any:
    """Import skimage.restoration, which only these conditions need."""
    try:
        from skimage import restoration
    except ImportError as error:
        raise ConfigError(
            "The denoising conditions need scikit-image; install it (pip install scikit-image)."
        ) from error
    return restoration


def _eight_bit(volume: Volume) -> Volume:
    low, high = np.percentile(volume, (0.1, 99.9))
    scaled = (volume - float(low)) / float(high - low)
    return np.asarray(np.rint(np.clip(scaled, 0, 1) * 255), np.float32)


def _binned(sample: Sample) -> Sample:
    z, y, x = (n // 2 * 2 for n in sample.tomogram.data.shape)
    volume = np.asarray(sample.tomogram.data)[:z, :y, :x].reshape(z // 2, 2, y // 2, 2, x // 2, 2)
    size = 2 * sample.tomogram.voxel_size_angstrom
    return _regrid(sample, volume.mean(axis=(1, 3, 5)), size, lambda centre: (centre - 0.5) / 2)


def _up_sampled(sample: Sample) -> Sample:
    factor = 1.5
    volume = ndimage.zoom(np.asarray(sample.tomogram.data), factor, order=1, grid_mode=True, mode="nearest")
    size = sample.tomogram.voxel_size_angstrom / factor
    return _regrid(sample, volume, size, lambda centre: (centre + 0.5) * factor - 0.5)


def _with_voxel_size(factor: float) -> Callable[[Sample], Sample]:
    """A process that states a wrong voxel size."""

    def process(sample: Sample) -> Sample:
        size = factor * sample.tomogram.voxel_size_angstrom
        return _regrid(sample, np.asarray(sample.tomogram.data), size, lambda centre: centre)

    return process


def _tilt_axis_along_x(sample: Sample) -> Sample:
    volume = np.asarray(sample.tomogram.data).transpose(0, 2, 1)

    def swap(vectors: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return vectors[:, [0, 2, 1]]

    return _regrid(sample, volume, sample.tomogram.voxel_size_angstrom, swap, swap)


def _flipped_hand(sample: Sample) -> Sample:
    volume = np.asarray(sample.tomogram.data)[::-1]
    last = len(volume) - 1
    return _regrid(
        sample,
        volume,
        sample.tomogram.voxel_size_angstrom,
        lambda centre: centre * [-1, 1, 1] + [last, 0, 0],
        lambda normal: normal * [-1, 1, 1],
    )


def _zero_filled(sample: Sample) -> Sample:
    """Zeros beyond a slanted edge and in the outermost slices, as of reconstructions of rotated series.

    Particles centred in the zeros are left out: nothing of them is to be seen.
    """
    shape = sample.tomogram.shape
    z, y, x = np.ogrid[tuple(map(slice, shape))]
    empty = np.broadcast_to((y < 0.08 * shape[1] + 0.06 * x) | (z < 3), shape)

    def left(particles: Candidates) -> Candidates:
        return particles[~empty[tuple(np.rint(particles.centre_zyx).astype(int).T)]]

    filled = _changed(lambda volume: np.where(empty, 0.0, volume + 5.0).astype(np.float32))(sample)
    return Sample(filled.tomogram, left(sample.truth), left(sample.distractors))


CONDITIONS: tuple[Condition, ...] = (
    Condition("ordinary"),
    Condition("phase plate (0.5 pi), 0.5 um", {"phase_shift_pi": 0.5, "defocus_um": 0.5}),
    Condition("phase plate (0.3 pi), 1 um", {"phase_shift_pi": 0.3, "defocus_um": 1.0}),
    Condition("phase plate (0.7 pi), 1 um", {"phase_shift_pi": 0.7, "defocus_um": 1.0}),
    Condition("2 um defocus", {"defocus_um": 2.0}),
    Condition("10 um defocus", {"defocus_um": 10.0}),
    Condition("tilts every degree to 60", {"tilt_step_degrees": 1.0}),
    Condition("tilts every 5 degrees to 60", {"tilt_step_degrees": 5.0}),
    Condition("tilts to 40 degrees", {"tilt_range_degrees": 40.0}),
    Condition("tilts to 70 degrees", {"tilt_range_degrees": 70.0}),
    Condition("dose 40", {"total_dose_per_square_angstrom": 40.0}),
    Condition("dose 140", {"total_dose_per_square_angstrom": 140.0}),
    Condition("alignment to a voxel", {"shift_error_nm": 1.36, "angle_error_degrees": 0.3}),
    Condition(
        "few tilts, aligned to a voxel",
        {
            "tilt_step_degrees": 5.0,
            "tilt_range_degrees": 45.0,
            "shift_error_nm": 1.36,
            "angle_error_degrees": 0.3,
        },
    ),
    Condition("300 nm of ice", {"ice_thickness_nm": 300.0}),
    Condition("noise twice as strong", {"noise_scale": 2.8}),
    Condition("SIRT, 5 iterations", {"sirt_iterations": 5}),
    Condition("SIRT, 30 iterations", {"sirt_iterations": 30}),
    Condition(
        "ART-like: SIRT of 60, cut off at 0.2",
        {"sirt_iterations": 60, "radial_cutoff": 0.2, "radial_falloff": 0.05},
    ),
    Condition("WBP cut off at 0.25", {"radial_cutoff": 0.25, "radial_falloff": 0.05}),
    Condition("phase-flipped", {"phase_flip": True}),
    Condition("phase-flipped, 10 um defocus", {"phase_flip": True, "defocus_um": 10.0}),
    Condition("Wiener deconvolution", {"deconvolution": 0.8, "phase_flip": True}),
    Condition("Gaussian filter, 1 voxel", process=_changed(lambda v: ndimage.gaussian_filter(v, 1.0))),
    Condition("Gaussian filter, 2 voxels", process=_changed(lambda v: ndimage.gaussian_filter(v, 2.0))),
    Condition("median filter, 3 voxels", process=_changed(lambda v: ndimage.median_filter(v, 3))),
    Condition("non-local means", process=_changed(_non_local_means)),
    Condition("total variation", process=_changed(_total_variation)),
    Condition("8 bit", process=_changed(_eight_bit)),
    Condition("binned to 27.2 A", process=_binned),
    Condition("up-sampled to 9.1 A", process=_up_sampled),
    Condition("voxel size 8% too large", process=_with_voxel_size(1.08)),
    Condition("voxel size 8% too small", process=_with_voxel_size(1 / 1.08)),
    Condition("tilt axis along x", process=_tilt_axis_along_x),
    Condition("flipped hand", process=_flipped_hand),
    Condition("strong intensity gradients", {"intensity_ramp": 2.0, "corner_darkening": 2.0}),
    Condition("carbon edge", {"carbon_film_nm": 15.0}),
    Condition("40 gold beads", {"gold_beads": 40}),
    Condition("zero-filled regions", process=_zero_filled),
    Condition(
        "tilts to 30 degrees, dose 40",
        {"tilt_range_degrees": 30.0, "total_dose_per_square_angstrom": 40.0},
        pickable=False,
    ),
    Condition(
        "phase plate (0.5 pi), 0.5 um, noise three times as strong",
        {"phase_shift_pi": 0.5, "defocus_um": 0.5, "noise_scale": 4.2},
        pickable=False,
    ),
    Condition(
        "noise three times as strong, aligned to two voxels",
        {"noise_scale": 4.2, "shift_error_nm": 2.7, "angle_error_degrees": 0.5},
        pickable=False,
    ),
    # The domain of `train few-labels`, with as many T3SS as the other conditions.
    Condition(
        "12 um, tilts to 38 degrees, strong noise, poor alignment",
        {name: value for name, value in UNSEEN_DOMAIN.items() if name != "t3ss_per_cell"},
        pickable=False,
    ),
)
