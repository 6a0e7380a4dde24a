"""Imaging of a specimen: tilt series, contrast transfer, noise, weighted back-projection."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.sparse

from t3ssfast.simulation.parameters import Physics

__all__ = [
    "Projector",
    "contrast_transfer",
    "electron_wavelength",
    "reconstruct",
    "tilt_angles",
    "tilt_series",
]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# The contrast transfer function delocalises by wavelength * defocus * frequency: 4 nm at 6 um and 1 / (3 nm).
PAD_VOXELS = 16


def tilt_angles(physics: Physics) -> Float64:
    """Return the (n,) nominal tilts about y, degrees."""
    half = int(physics.tilt_range_degrees / physics.tilt_step_degrees)
    steps = np.arange(-half, half + 1, dtype=np.float64)
    return physics.pretilt_degrees + physics.tilt_step_degrees * steps


class Projector:
    """Projection of (z, x, y) volumes to (x, y) images at tilts about y, and its exact transpose.

    A voxel at (z, x) from the centre projects to ``x cos(tilt) + z sin(tilt)``, shared linearly by two
    pixels. If `mirrored`, the specimen continues beyond the sides, as at high tilt, as its mirror image.
    """

    def __init__(self, shape_zxy: tuple[int, int, int], *, mirrored: bool) -> None:
        self._shape, self._mirrored = shape_zxy, mirrored

    def _matrix(self, angle_degrees: float) -> scipy.sparse.csr_matrix:
        """Return (x, z * x) weights at one tilt."""
        depth, width, _ = self._shape
        angle = np.radians(angle_degrees)
        beyond = 0
        if self._mirrored:
            needed = (width / 2 + depth / 2 * abs(np.sin(angle))) / max(np.cos(angle), 0.1)
            beyond = int(np.ceil(max(needed - width / 2, 0))) + 1
        z, x = np.meshgrid(np.arange(depth), np.arange(-beyond, width + beyond), indexing="ij")
        position = (x - (width - 1) / 2) * np.cos(angle) + (z - (depth - 1) / 2) * np.sin(angle)
        position += (width - 1) / 2
        pixel = np.floor(position).astype(np.int64)
        share = (position - pixel).astype(np.float32)
        folded = np.mod(x, 2 * width)
        source = z * width + np.where(folded < width, folded, 2 * width - 1 - folded)
        rows, columns, weights = map(np.ravel, ([pixel, pixel + 1], [source, source], [1 - share, share]))
        inside = (rows >= 0) & (rows < width)
        entries = (weights[inside], (rows[inside], columns[inside]))
        return scipy.sparse.csr_matrix(entries, shape=(width, depth * width), dtype=np.float32)

    def project(self, volume_zxy: Float32, angle_degrees: float) -> Float32:
        """Sum a (z, x, y) volume along the beam: (x, y)."""
        return np.asarray(self._matrix(angle_degrees) @ volume_zxy.reshape(-1, volume_zxy.shape[-1]))

    def back_project(self, images: Float32, angles_degrees: npt.ArrayLike) -> Float32:
        """Apply the transpose of `project` to (n, x, y) images and sum over tilts: (z, x, y)."""
        depth, width, height = self._shape
        matrix = scipy.sparse.vstack([self._matrix(a) for a in np.atleast_1d(angles_degrees)], format="csc")
        flat = np.ascontiguousarray(images, dtype=np.float32).reshape(-1, height)
        volume = np.empty(self._shape, dtype=np.float32)
        for z in range(depth):
            volume[z] = matrix[:, z * width : (z + 1) * width].T @ flat
        return volume


def electron_wavelength(voltage_kv: float) -> float:
    """Return the relativistic wavelength in Angstrom (Reimer & Kohl 2008)."""
    volt = voltage_kv * 1e3
    return float(12.2643 / np.sqrt(volt + 0.978466e-6 * volt**2))


def contrast_transfer(frequency: Float64, defocus_angstrom: float, physics: Physics) -> Float64:
    """Return the transfer from phase to contrast, ``-2 sin(gamma + w + p)``, at frequencies in 1/Angstrom.

    w is the shift of the amplitude contrast, and p that of a phase plate (Danev & Baumeister 2016).
    """
    wavelength = electron_wavelength(physics.voltage_kv)
    gamma = np.pi * wavelength * defocus_angstrom * frequency**2
    gamma -= np.pi / 2 * physics.spherical_aberration_mm * 1e7 * wavelength**3 * frequency**4
    constant = np.arcsin(physics.amplitude_contrast) + np.pi * physics.phase_shift_pi
    transfer = -2 * np.sin(gamma + constant)
    if physics.phase_flip:
        transfer = -np.abs(transfer)
    transfer *= np.exp(-physics.b_factor / 4 * frequency**2)
    return np.asarray(transfer)


def _interpolation_gain(length: int) -> Float64:
    """Return the inverse transfer function of linear interpolation between pixels, in FFT order."""
    return np.asarray(1 / np.sinc(scipy.fft.fftfreq(length)) ** 2)


def _deconvolution_filter(frequency: Float64, physics: Physics) -> Float32:
    """Return a Wiener filter for the mean transfer function, with maximum 1."""
    # The signal-to-noise ratio of Warp (Tegunov & Cramer 2019).
    transfer = -contrast_transfer(frequency, physics.defocus_um * 1e4, physics) / 2
    ratio = 10 ** (3 * physics.deconvolution) * np.exp(-100 * frequency)
    wiener = transfer / (transfer**2 + 1 / ratio)
    if not physics.phase_flip:
        # Signs beyond the first zero stay as recorded.
        wiener = np.abs(wiener)
    return np.asarray(wiener / wiener.max(), dtype=np.float32)


def _filter_padded(image: Float32, transfer: npt.NDArray[np.inexact]) -> Float32:
    """Multiply the transform of an image, padded with its mirror image, by a transfer function."""
    padded = np.pad(image, PAD_VOXELS, mode="symmetric")
    filtered = scipy.fft.irfft2(scipy.fft.rfft2(padded) * transfer, s=padded.shape)
    return np.asarray(filtered[PAD_VOXELS:-PAD_VOXELS, PAD_VOXELS:-PAD_VOXELS], dtype=np.float32)


def tilt_series(
    density: Float32, voxel_nm: float, physics: Physics, rng: np.random.Generator
) -> tuple[Float32, Float64]:
    """Simulate (n, x, y) images of a (z, y, x) specimen, with mean 0; return also their nominal tilts."""
    depth, height, width = density.shape
    volume = np.ascontiguousarray(density.transpose(0, 2, 1))
    projector = Projector((depth, width, height), mirrored=True)
    angles = tilt_angles(physics)
    dose = physics.total_dose_per_square_angstrom / len(angles) * physics.detector_efficiency
    fx = scipy.fft.fftfreq(width + 2 * PAD_VOXELS)[:, None]
    fy = scipy.fft.rfftfreq(height + 2 * PAD_VOXELS)[None, :]
    frequency = np.hypot(fx, fy) / (voxel_nm * 10)
    gain = _interpolation_gain(len(fx))[:, None]
    deconvolution = _deconvolution_filter(frequency, physics)
    images = np.empty((len(angles), width, height), dtype=np.float32)
    for image, angle in zip(images, angles, strict=True):
        true_angle = angle + physics.angle_error_degrees * rng.standard_normal()
        phase = projector.project(volume, true_angle) * (voxel_nm * physics.phase_per_nm)
        defocus = 1e4 * max(physics.defocus_um + physics.defocus_spread_um * rng.standard_normal(), 0.0)
        shift = physics.shift_error_nm / voxel_nm * rng.standard_normal(2)
        transfer = contrast_transfer(frequency, defocus, physics) * gain
        transfer = transfer * np.exp(-2j * np.pi * (fx * shift[0] + fy * shift[1]))
        contrast = _filter_padded(phase, transfer.astype(np.complex64))
        # The weak-phase approximation is unbounded; numbers of electrons are not.
        intensity = np.clip(1 + contrast, 0.05, 3.0)
        path = max(depth * voxel_nm, physics.ice_thickness_nm) / max(np.cos(np.radians(angle)), 0.1)
        electrons = dose * (voxel_nm * 10) ** 2 * np.exp(-path / physics.mean_free_path_nm)
        noise = rng.standard_normal(intensity.shape, dtype=np.float32)
        image[:] = intensity + physics.noise_scale * noise * np.sqrt(intensity / electrons)
        image -= image.mean()
        if physics.deconvolution:
            image[:] = _filter_padded(image, deconvolution)
    return images, angles


def _radial_weights(length: int, physics: Physics) -> Float64:
    frequency = np.abs(scipy.fft.fftfreq(length))
    # The ramp does not reach 0 at the origin, so that part of the mean remains, as in experimental data.
    weights = np.maximum(frequency, 0.2 / length)
    if physics.sirt_iterations:
        # n steps of gradient descent pass 1 - (1 - c / f)^n of a frequency f; the first step defines c.
        step = np.minimum(0.002 / weights, 1.0)
        weights = weights * (1 - (1 - step) ** physics.sirt_iterations)
    over = np.maximum(frequency - physics.radial_cutoff, 0) / physics.radial_falloff
    return np.asarray(weights * np.exp(-0.5 * over**2))


def reconstruct(images: Float32, angles_degrees: Float64, depth: int, physics: Physics) -> Float32:
    """Reconstruct (z, y, x) by weighted back-projection, with mean 0 and standard deviation 1."""
    _, width, height = images.shape
    pad = width // 2
    padded = scipy.fft.next_fast_len(width + 2 * pad, real=True)
    padding = ((pad, padded - width - pad), (0, 0))
    weights = _radial_weights(padded, physics) * _interpolation_gain(padded)
    weights = weights[: padded // 2 + 1, None].astype(np.float32)
    filtered = np.empty_like(images)
    for index, image in enumerate(images):
        spectrum = scipy.fft.rfft(np.pad(image, padding, mode="symmetric"), axis=0)
        filtered[index] = scipy.fft.irfft(spectrum * weights, n=padded, axis=0)[pad : pad + width]
    volume = Projector((depth, width, height), mirrored=False).back_project(filtered, angles_degrees)
    volume -= volume.mean(dtype=np.float64)
    volume /= max(float(volume.std(dtype=np.float64)), 1e-12)
    return np.ascontiguousarray(volume.transpose(0, 2, 1))
