"""A tomogram on a model's grid, slab by slab."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from t3ssfast.detection.normalise.grid import Axis, FloatArray, resampled
from t3ssfast.detection.normalise.local_mean import Smoothers, local_mean, moved, smoother
from t3ssfast.detection.normalise.slices import slices_about
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.io import release_pages
from t3ssfast.models.normalisation import Normalisation
from t3ssfast.runtime.upload import Uploader, as_float32
from t3ssfast.tomogram import Tomogram, check_voxel_size

__all__ = ["PreparedTomogram"]

# Voxel sizes this close are taken as equal: over a 50-voxel window it is a shift of half a voxel at its rim.
SAME_VOXEL_SIZE = 0.01
# Slices from which the centre and the scale of a tomogram are estimated.
SAMPLED_SLICES = 12
# Values per sampled slice that enter the medians; 12 x 16,384 values fix a median within 0.3% of a sigma.
SAMPLED_VALUES = 16_384
# The median absolute deviation of a Gaussian is 1 / 1.4826 of its standard deviation.
MAD_TO_SIGMA = 1.4826
# Beyond so many sigmas a voxel is gold or an X-ray hit, which must not pull the local mean.
OUTLIER_SIGMAS = 4.0
FWHM_TO_SIGMA = 1.0 / (2.0 * math.sqrt(2.0 * math.log(2.0)))


def _median_and_sigma(values: FloatArray) -> tuple[float, float]:
    """Median and robust standard deviation; the plain one of what differs where over half is one value."""
    centre = float(np.median(values))
    sigma = MAD_TO_SIGMA * float(np.median(np.abs(values - centre)))
    if sigma == 0:
        rest = values[values != centre]
        sigma = float(np.sqrt(np.mean((rest.astype(np.float64) - centre) ** 2))) if rest.size else 0.0
    return centre, sigma


@dataclass(frozen=True)
class PreparedTomogram:
    """A tomogram on a model's grid, normalised, read in slabs; make one with `prepare`.

    Attributes
    ----------
    tomogram
        The tomogram itself, untouched.
    voxel_size_angstrom
        Of the model's grid.
    shape
        (z, y, x) of the model's grid.
    normalisation
        What is done to the values.
    contrast_sign
        +1 where protein is dark as reconstructed, -1 where it is bright and therefore inverted.
    """

    tomogram: Tomogram
    voxel_size_angstrom: float
    shape: tuple[int, int, int]
    normalisation: Normalisation
    contrast_sign: int
    _axes: tuple[Axis, Axis, Axis]
    _resample: tuple[sparse.csr_array, sparse.csr_array] | None
    _smooth: Smoothers | None
    _origin: float
    _outlier: float
    _centre: float
    _scale: float

    @classmethod
    def prepare(
        cls,
        tomogram: Tomogram,
        *,
        voxel_size_angstrom: float | None = None,
        normalisation: Normalisation | None = None,
        contrast_sign: int = 1,
    ) -> PreparedTomogram:
        """Lay a model's grid over a tomogram and estimate its centre and scale from a sample of slices.

        Parameters
        ----------
        tomogram
            Any real dtype, may be memory-mapped.
        voxel_size_angstrom
            Of the model; None keeps the tomogram's own. Sizes within 1% count as equal, and nothing is
            resampled then.
        normalisation
            None takes the defaults.
        contrast_sign
            +1: protein is dark; -1: protein is bright, and the values are inverted.

        Raises
        ------
        InputError
            The data are complex, empty, constant, or hold NaN or Inf in a slice that was sampled.
        """
        normalisation = Normalisation() if normalisation is None else normalisation
        if contrast_sign not in (-1, 1):
            raise ConfigError(f"contrast_sign is {contrast_sign!r}; give +1 (protein dark) or -1 (bright).")
        if tomogram.data.dtype.kind not in "buif" or min(tomogram.shape) == 0:
            raise InputError(
                f"{tomogram.name}: {tomogram.data.dtype} data of shape {tomogram.shape} cannot be searched; "
                "give a volume of real numbers with at least one voxel."
            )
        own = tomogram.voxel_size_angstrom
        if voxel_size_angstrom is None:
            target = own
        else:
            target = check_voxel_size(voxel_size_angstrom, source="voxel_size_angstrom")
        step = target / own
        if abs(step - 1) <= SAME_VOXEL_SIZE:
            step, target = 1.0, own
        z, y, x = (Axis.make(length, step) for length in tomogram.shape)
        smooth = None
        if normalisation.highpass_nm > 0:
            sigma = normalisation.highpass_nm * 10.0 / target * FWHM_TO_SIGMA
            smooth = (smoother(y.size, sigma), smoother(x.size, sigma))
        resample = None
        if step != 1.0:
            resample = (y.matrix(tomogram.shape[1]), x.matrix(tomogram.shape[2]))
        raw = cls(
            tomogram=tomogram,
            voxel_size_angstrom=target,
            shape=(z.size, y.size, x.size),
            normalisation=normalisation,
            contrast_sign=contrast_sign,
            _axes=(z, y, x),
            _resample=resample,
            _smooth=smooth,
            _origin=0.0,
            _outlier=math.inf,
            _centre=0.0,
            _scale=1.0,
        )
        return raw._estimate()

    def _estimate(self) -> PreparedTomogram:
        """The same with origin, outlier limit, centre and scale taken from evenly spread slices."""
        count = min(SAMPLED_SLICES, self.shape[0])
        # Middles of `count` equal parts: the first and last slices are often empty.
        chosen = ((np.arange(count) + 0.5) * self.shape[0] / count).astype(int)
        grids = [self._on_grid(int(z)) for z in chosen]
        stride = max(1, self.shape[1] * self.shape[2] // SAMPLED_VALUES)
        # An odd stride cannot stay in step with rows of an even length and see only some columns.
        stride |= 1

        def spread(slices: list[FloatArray]) -> tuple[float, float]:
            return _median_and_sigma(np.concatenate([s.ravel()[::stride] for s in slices]))

        origin, sigma = spread(grids)
        if sigma == 0:
            # Before it is called constant, every value of the sample is looked at.
            sigma = max(float(np.ptp(s)) for s in grids)
        if sigma == 0:
            raise InputError(
                f"{self.tomogram.name}: all values of the sampled slices are {origin:g}; there is nothing to "
                "find in a constant volume."
            )
        first = replace(self, _origin=origin)
        _, sigma_flat = spread([first._flatten(s) for s in grids])
        robust = replace(first, _outlier=OUTLIER_SIGMAS * (sigma_flat or sigma))
        centre, scale = spread([robust._flatten(s) for s in grids])
        return replace(robust, _centre=centre, _scale=scale or sigma)

    def with_contrast_sign(self, contrast_sign: int) -> PreparedTomogram:
        """The same tomogram seen with the other contrast; costs nothing."""
        return replace(self, contrast_sign=contrast_sign)

    @property
    def on_own_voxels(self) -> bool:
        """Whether the model's grid is the tomogram's own, so that nothing is resampled."""
        return self._resample is None

    def _raw(self, z: int) -> FloatArray:
        """Slice z of the tomogram as float32; NaN and Inf are refused."""
        values = np.asarray(self.tomogram.data[z])
        out = np.ascontiguousarray(values, dtype=np.float32)
        if values.dtype.kind == "f" and not np.isfinite(out).all():
            y, x = np.argwhere(~np.isfinite(out))[0]
            raise InputError(
                f"{self.tomogram.name}: the value at (z, y, x) = ({z}, {y}, {x}) is {values[y, x]}; replace "
                "NaN and infinite values before searching this tomogram."
            )
        return out

    def _weights(self, z: int) -> dict[int, float]:
        """Which slices of the tomogram slice z of the grid is made of, and their weights."""
        axis, weights = self._axes[0], dict[int, float]()
        for tap, weight in zip(axis.taps[z].tolist(), axis.weights[z].tolist(), strict=True):
            weights[tap] = weights.get(tap, 0.0) + weight
        return {tap: weight for tap, weight in weights.items() if weight != 0}

    def _on_grid(self, z: int) -> FloatArray:
        """Slice z of the model's grid, anti-aliased, in the tomogram's own values."""
        if self._resample is None:
            return self._raw(int(self._axes[0].taps[z, 0]))
        total: FloatArray | None = None
        for tap, weight in self._weights(z).items():
            term = self._raw(tap) * np.float32(weight)
            total = term if total is None else np.add(total, term, out=total)
        assert total is not None, "the weights of a grid point sum to one"
        rows, columns = self._resample
        by_rows = rows @ total
        return np.ascontiguousarray((columns @ np.ascontiguousarray(by_rows.T)).T, dtype=np.float32)

    def _flatten(self, grid: FloatArray) -> FloatArray:
        """A slice less its local mean; outliers do not pull that mean."""
        # Products by PyTorch: NumPy's would take all cores whatever the number of threads asked for, and spin
        # while they wait. Its memory is aligned alike for every slice, without which a product may round
        # differently.
        values = torch.empty(grid.shape)
        np.subtract(grid, np.float32(self._origin), out=values.numpy())
        flat: FloatArray = self._subtract_local_mean(values, self._smooth).numpy()
        return flat

    def _subtract_local_mean(self, values: Tensor, smooth: Smoothers | None) -> Tensor:
        if smooth is not None:
            mean = local_mean(values, smooth)
            if math.isfinite(self._outlier):
                clipped = torch.clamp(values, mean - self._outlier, mean + self._outlier)
                mean = local_mean(clipped, smooth)
            values -= mean
        return values

    def slab(self, z0: int, z1: int) -> FloatArray:
        """Slices z0 up to z1 of the model's grid, prepared.

        Parameters
        ----------
        z0, z1
            0 <= z0 <= z1 <= shape[0].

        Returns
        -------
        (z1 - z0, y, x) float32, C-contiguous; bit for bit the same however the volume is cut.

        Raises
        ------
        InputError
            The slab lies outside the grid, or a value is NaN or infinite; the message says where.
        """
        self._check_slices(z0, z1)
        out = np.empty((z1 - z0, *self.shape[1:]), np.float32)
        limit = np.float32(self.normalisation.clip)
        gain = np.float32(self.contrast_sign / self._scale)
        for k in range(z1 - z0):
            values = self._flatten(self._on_grid(z0 + k))
            values -= np.float32(self._centre)
            values *= gain
            np.clip(values, -limit, limit, out=out[k])
        release_pages(self.tomogram.data)
        return out

    def slab_about(self, z: int, count: int) -> FloatArray:
        """Slice z of the model's grid among its neighbours, as `slab` prepares them.

        Parameters
        ----------
        z
            0 <= z < shape[0].
        count
            Slices in a row, an odd number.

        Returns
        -------
        (count, y, x) float32, slice z in the middle; beyond a face the slice of the face.

        Raises
        ------
        InputError
            As for `slab`.
        """
        self._check_slices(z, z + 1)
        first = max(0, z - count // 2)
        return slices_about(self.slab(first, min(z + count // 2 + 1, self.shape[0])), z - first, count)

    def _check_slices(self, z0: int, z1: int) -> None:
        if not 0 <= z0 <= z1 <= self.shape[0]:
            raise InputError(f"Slices {z0} to {z1} were asked of a grid with {self.shape[0]} slices.")

    def slab_on_device(self, z0: int, z1: int, upload: Uploader) -> Tensor:
        """The same as `slab`, prepared where it is used: slices travel as they are stored.

        Parameters
        ----------
        z0, z1
            As for `slab`.
        upload
            Brings them to its device.

        Returns
        -------
        (z1 - z0, y, x) float32 on the device; on a CPU, where nothing is resampled, the bits of `slab`.
        """
        self._check_slices(z0, z1)
        data = self.tomogram.data
        # A setting of the whole process may round products of float32 to TF32; those of float64 are safe.
        exact = torch.float64 if upload.device.type == "cuda" else torch.float32
        smooth = moved(self._smooth, upload.device, exact)
        rows_columns = None
        if self._resample is not None:
            rows_columns = [torch.from_numpy(m.toarray()).to(upload.device, exact) for m in self._resample]
        limit, gain, centre, origin = (
            float(np.float32(value))
            for value in (
                self.normalisation.clip,
                self.contrast_sign / self._scale,
                self._centre,
                self._origin,
            )
        )
        with upload.stream():
            out = torch.empty((z1 - z0, *self.shape[1:]), device=upload.device)
            if z0 < z1:
                taps = self._axes[0].taps[z0:z1]
                first, last = int(taps.min()), int(taps.max()) + 1
                raw = upload.upload(data, first, last)
                release_pages(data)
                if data.dtype.kind == "f" and not bool(torch.isfinite(raw).all()):
                    for z in range(first, last):
                        self._raw(z)
                for k in range(z1 - z0):
                    total: Tensor | None = None
                    for tap, weight in self._weights(z0 + k).items():
                        term = as_float32(raw[tap - first], data.dtype) * weight
                        total = term if total is None else total + term
                    assert total is not None, "the weights of a grid point sum to one"
                    if rows_columns is not None:
                        rows, columns = rows_columns
                        total = (rows @ total.to(exact) @ columns.T).to(torch.float32)
                    flat = self._subtract_local_mean(total - origin, smooth)
                    torch.clamp((flat - centre) * gain, -limit, limit, out=out[k])
        return upload.finish(out)

    def to_tomogram(self, zyx_on_model_grid: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Positions on the model's grid as voxels of the tomogram; both 0-based, at voxel centres.

        Parameters
        ----------
        zyx_on_model_grid
            (..., 3).

        Returns
        -------
        (..., 3) float64: ``position * step + origin``.
        """
        position = np.asarray(zyx_on_model_grid, dtype=np.float64)
        return position * self._steps + self._origins

    def from_tomogram(self, zyx: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Voxels of the tomogram as positions on the model's grid; the inverse of `to_tomogram`."""
        return (np.asarray(zyx, dtype=np.float64) - self._origins) / self._steps

    @property
    def _steps(self) -> npt.NDArray[np.float64]:
        return np.array([axis.step for axis in self._axes])

    @property
    def _origins(self) -> npt.NDArray[np.float64]:
        return np.array([axis.origin for axis in self._axes])

    def mask_from_tomogram(self, mask: npt.NDArray[Any], z0: int, z1: int) -> npt.NDArray[np.uint8]:
        """Slices z0 up to z1 of a tomogram-shaped mask, on the model's grid (linear, at least half inside).

        Parameters
        ----------
        mask
            (z, y, x) as the tomogram; non-zero is inside.

        Returns
        -------
        (z1 - z0, y, x) uint8, 0 or 1.

        Raises
        ------
        InputError
            The mask has another shape than the tomogram.
        """
        if tuple(mask.shape) != self.tomogram.shape:
            raise InputError(
                f"The mask has shape {tuple(mask.shape)} but {self.tomogram.name} has {self.tomogram.shape}; "
                "give a mask with one voxel for each of the tomogram's."
            )
        axes = (a.between(n) for a, n in zip(self._axes, self.tomogram.shape, strict=True))
        out = resampled(lambda z: (np.asarray(mask[z]) != 0).astype(np.float32), axes, z0, z1, 0.5)
        release_pages(mask)
        return out

    def mask_to_tomogram(self, mask: npt.NDArray[Any], threshold: float = 0.5) -> npt.NDArray[np.uint8]:
        """A mask on the model's grid, on the tomogram's voxels (linear between grid points).

        Parameters
        ----------
        mask
            (z, y, x) of `shape`: 0 and 1, or levels between which a surface is to be found.
        threshold
            What is inside reaches it.

        Returns
        -------
        uint8, 0 or 1, of the tomogram's shape.
        """
        if tuple(mask.shape) != self.shape:
            raise InputError(f"The mask has shape {tuple(mask.shape)} but the model's grid has {self.shape}.")
        shape = self.tomogram.shape
        axes = (a.between_inverse(n) for a, n in zip(self._axes, shape, strict=True))
        return resampled(lambda z: mask[z].astype(np.float32), axes, 0, shape[0], threshold)
