"""From densities to a tomogram: tilt series, contrast transfer, noise, weighted back-projection."""

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

# The transfer function spreads a point by wavelength * defocus * frequency: 4 nm at 6 um and 3 nm.
PAD = 16


def tilt_angles(physics: Physics) -> npt.NDArray[np.float64]:
    """(n,) degrees, the nominal tilts about y."""
    half = int(physics.tilt_range_degrees / physics.tilt_step_degrees)
    steps = np.arange(-half, half + 1, dtype=np.float64)
    return physics.pretilt_degrees + physics.tilt_step_degrees * steps


class Projector:
    """Projection along the beam at a tilt about y, and its exact transpose.

    A voxel at (z, x) from the volume's centre falls onto the detector at ``x cos(tilt) + z sin(tilt)``,
    shared linearly by two pixels. The matrix acts on volumes of shape (z, x, y), y running along.

    Parameters
    ----------
    shape_zxy
        Of the volume; the images are (x, y).
    mirrored
        Whether the specimen goes on beyond the volume's sides, as its mirror image: at high tilt the
        detector sees beyond them.
    """

    def __init__(self, shape_zxy: tuple[int, int, int], *, mirrored: bool) -> None:
        self.shape_zxy = shape_zxy
        self.mirrored = mirrored

    def matrix(self, angle_degrees: float) -> scipy.sparse.csr_matrix:
        """(x, z * x) weights at one tilt."""
        depth, width, _ = self.shape_zxy
        angle = np.radians(angle_degrees)
        beyond = 0
        if self.mirrored:
            needed = (width / 2 + depth / 2 * abs(np.sin(angle))) / max(np.cos(angle), 0.1)
            beyond = int(np.ceil(max(needed - width / 2, 0))) + 1
        column = np.arange(-beyond, width + beyond)
        z, x = np.meshgrid(np.arange(depth), column, indexing="ij")
        position = (x - (width - 1) / 2) * np.cos(angle) + (z - (depth - 1) / 2) * np.sin(angle)
        position += (width - 1) / 2
        pixel = np.floor(position).astype(np.int64)
        share = (position - pixel).astype(np.float32)
        folded = np.mod(x, 2 * width)
        source = z * width + np.where(folded < width, folded, 2 * width - 1 - folded)
        rows = np.concatenate([pixel.ravel(), pixel.ravel() + 1])
        columns = np.concatenate([source.ravel(), source.ravel()])
        weights = np.concatenate([1 - share.ravel(), share.ravel()])
        seen = (rows >= 0) & (rows < width)
        return scipy.sparse.csr_matrix(
            (weights[seen], (rows[seen], columns[seen])), shape=(width, depth * width), dtype=np.float32
        )

    def project(self, volume_zxy: Float32, angle_degrees: float) -> Float32:
        """(z, x, y) volume -> (x, y) image, sums along the beam."""
        depth, width, height = self.shape_zxy
        image: Float32 = self.matrix(angle_degrees) @ volume_zxy.reshape(depth * width, height)
        return image

    def back_project(self, images: Float32, angles_degrees: npt.ArrayLike) -> Float32:
        """(n, x, y) images -> (z, x, y) volume: the transpose of `project`, summed over tilts."""
        depth, width, height = self.shape_zxy
        matrix = scipy.sparse.vstack([self.matrix(a) for a in np.atleast_1d(angles_degrees)], format="csc")
        flat = np.ascontiguousarray(images, dtype=np.float32).reshape(-1, height)
        volume = np.empty(self.shape_zxy, dtype=np.float32)
        for z in range(depth):
            volume[z] = matrix[:, z * width : (z + 1) * width].T @ flat
        return volume


def electron_wavelength(voltage_kv: float) -> float:
    """Relativistic wavelength in Angstrom (Reimer & Kohl 2008)."""
    volt = voltage_kv * 1e3
    return float(12.2643 / np.sqrt(volt + 0.978466e-6 * volt**2))


def contrast_transfer(
    frequency: npt.NDArray[np.float64], defocus_angstrom: float, physics: Physics
) -> npt.NDArray[np.float64]:
    """Transfer from phase to intensity, 1 + I = 1 - 2 sin(gamma + w): protein is dark in underfocus.

    Parameters
    ----------
    frequency
        1/Angstrom.
    defocus_angstrom
        Underfocus positive.
    physics
        Microscope.
    """
    wavelength = electron_wavelength(physics.voltage_kv)
    gamma = np.pi * wavelength * defocus_angstrom * frequency**2
    gamma -= np.pi / 2 * physics.spherical_aberration_mm * 1e7 * wavelength**3 * frequency**4
    transfer = -2 * np.sin(gamma + np.arcsin(physics.amplitude_contrast))
    if physics.phase_flip:
        transfer = -np.abs(transfer)
    transfer *= np.exp(-physics.b_factor / 4 * frequency**2)
    return np.asarray(transfer)


def _interpolation_gain(length: int) -> npt.NDArray[np.float64]:
    """Inverse of the blur of linear interpolation between pixels, over rfft's other axis."""
    return np.asarray(1 / np.sinc(scipy.fft.fftfreq(length)) ** 2)


def _restoring_filter(frequency: npt.NDArray[np.float64], physics: Physics) -> Float32:
    """Wiener filter against the mean transfer function, for a signal that falls off with frequency.

    Scaled to 1 at its highest: the tomogram's scale is not the point, its spectrum is.
    """
    transfer = -contrast_transfer(frequency, physics.defocus_um * 1e4, physics) / 2
    # Tegunov & Cramer 2019, as in Warp: 10^(3 strength) at the origin, e-fold every 1 / (100 A).
    ratio = 10 ** (3 * physics.deconvolution) * np.exp(-100 * frequency)
    restoring = transfer / (transfer**2 + 1 / ratio)
    if not physics.phase_flip:
        # The signs beyond the first zero are left as they were recorded.
        restoring = np.abs(restoring)
    return np.asarray(restoring / restoring.max(), dtype=np.float32)


def _deconvolved(image: Float32, restoring: Float32) -> Float32:
    padded = tuple(n + 2 * PAD for n in image.shape)
    spectrum = scipy.fft.rfft2(np.pad(image, PAD, mode="symmetric")) * restoring
    return np.asarray(scipy.fft.irfft2(spectrum, s=padded)[PAD:-PAD, PAD:-PAD], dtype=np.float32)


def tilt_series(
    density: Float32, voxel_nm: float, physics: Physics, rng: np.random.Generator
) -> tuple[Float32, npt.NDArray[np.float64]]:
    """Noisy images of a specimen, relative to the mean intensity.

    Parameters
    ----------
    density
        (z, y, x), protein = 1, ice = 0.
    voxel_nm
        Voxel size.
    physics, rng
        How it is imaged; source of noise and of the errors of alignment.

    Returns
    -------
    (n, x, y) images and the (n,) nominal angles in degrees.
    """
    depth, height, width = density.shape
    volume = np.ascontiguousarray(density.transpose(0, 2, 1))
    projector = Projector((depth, width, height), mirrored=True)
    angles = tilt_angles(physics)
    dose = physics.total_dose_per_square_angstrom / len(angles) * physics.detector_efficiency
    padded = (width + 2 * PAD, height + 2 * PAD)
    fx = scipy.fft.fftfreq(padded[0])[:, None]
    fy = scipy.fft.rfftfreq(padded[1])[None, :]
    frequency = np.hypot(fx, fy) / (voxel_nm * 10)
    gain = _interpolation_gain(padded[0])[:, None]
    restoring = _restoring_filter(frequency, physics)
    images = np.empty((len(angles), width, height), dtype=np.float32)
    for image, angle in zip(images, angles, strict=True):
        true_angle = angle + physics.angle_error_degrees * rng.standard_normal()
        phase = projector.project(volume, true_angle) * (voxel_nm * physics.phase_per_nm)
        defocus = 1e4 * max(physics.defocus_um + physics.defocus_spread_um * rng.standard_normal(), 0.0)
        shift = physics.shift_error_nm / voxel_nm * rng.standard_normal(2)
        filter_ = contrast_transfer(frequency, defocus, physics) * gain
        filter_ = filter_ * np.exp(-2j * np.pi * (fx * shift[0] + fy * shift[1]))
        spectrum = scipy.fft.rfft2(np.pad(phase, PAD, mode="symmetric")) * filter_.astype(np.complex64)
        contrast = scipy.fft.irfft2(spectrum, s=padded)[PAD:-PAD, PAD:-PAD]
        # Weak-phase contrast has no bound; counted electrons do.
        intensity = np.clip(1 + contrast, 0.05, 3.0)
        path = depth * voxel_nm / max(np.cos(np.radians(angle)), 0.1)
        electrons = dose * (voxel_nm * 10) ** 2 * np.exp(-path / physics.mean_free_path_nm)
        noise = rng.standard_normal(intensity.shape, dtype=np.float32)
        image[:] = intensity + physics.noise_scale * noise * np.sqrt(intensity / electrons)
        image -= image.mean()
        if physics.deconvolution:
            image[:] = _deconvolved(image, restoring)
    return images, angles


def _radial_weights(length: int, physics: Physics) -> npt.NDArray[np.float64]:
    frequency = np.abs(scipy.fft.fftfreq(length))
    # The ramp does not reach 0 at the origin: a real image's mean is not lost altogether.
    weights = np.maximum(frequency, 0.2 / length)
    if physics.sirt_iterations:
        # n steps of a gradient descent pass 1 - (1 - c / f)^n of a frequency f; c is set by the first step.
        step = np.minimum(0.002 / weights, 1.0)
        weights = weights * (1 - (1 - step) ** physics.sirt_iterations)
    over = np.maximum(frequency - physics.radial_cutoff, 0) / physics.radial_falloff
    return np.asarray(weights * np.exp(-0.5 * over**2))


def reconstruct(
    images: Float32, angles_degrees: npt.NDArray[np.float64], depth: int, physics: Physics
) -> Float32:
    """Weighted back-projection.

    Parameters
    ----------
    images
        (n, x, y).
    angles_degrees
        (n,) tilts.
    depth
        Slices of the reconstruction.
    physics
        Its filter.

    Returns
    -------
    (z, y, x) float32, mean 0, standard deviation 1.
    """
    _, width, height = images.shape
    pad = width // 2
    padded = scipy.fft.next_fast_len(width + 2 * pad, real=True)
    extra = (pad, padded - width - pad)
    weights = _radial_weights(padded, physics) * _interpolation_gain(padded)
    weights = weights[: padded // 2 + 1, None].astype(np.float32)
    filtered = np.empty_like(images)
    for index, image in enumerate(images):
        spectrum = scipy.fft.rfft(np.pad(image, (extra, (0, 0)), mode="symmetric"), axis=0)
        filtered[index] = scipy.fft.irfft(spectrum * weights, n=padded, axis=0)[pad : pad + width]
    volume = Projector((depth, width, height), mirrored=False).back_project(filtered, angles_degrees)
    volume -= volume.mean(dtype=np.float64)
    volume /= max(float(volume.std(dtype=np.float64)), 1e-12)
    return np.ascontiguousarray(volume.transpose(0, 2, 1))
