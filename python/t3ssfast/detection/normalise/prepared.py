"""A tomogram on a model's grid, slab by slab."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from t3ssfast.detection.normalise.grid import (
    Axis,
    FloatArray,
    interpolate_slices,
    resample_mask,
    resample_slice,
)
from t3ssfast.detection.normalise.local_mean import LocalMean
from t3ssfast.detection.normalise.no_data import find_fill_values, no_data_mask
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.io import release_pages
from t3ssfast.models.normalisation import Normalisation
from t3ssfast.runtime.upload import Uploader, as_float32
from t3ssfast.tomogram import Tomogram, check_voxel_size

__all__ = ["PreparedTomogram", "neighbouring_slices"]

# Voxel sizes within 1% count as equal: over a 50-voxel window that is a shift of half a voxel at its rim.
SAME_VOXEL_SIZE = 0.01
# Slices, and values per slice, that give the scale of the grey values: their median within 0.3% of a sigma.
SAMPLED_SLICES, SAMPLED_VALUES = 12, 16_384
# Standard deviation of a Gaussian over its median absolute deviation.
MAD_TO_SIGMA = 1.4826
# Voxels beyond this many sigmas (gold beads, X-ray hits) are clipped before the local mean is taken.
OUTLIER_SIGMAS = 4.0
# Standard deviations, and values, whose normalisation neither overflows nor loses digits in single precision.
MIN_SCALE, MAX_SCALE = 1e-30, 1e30
FWHM_TO_SIGMA = 1.0 / (2.0 * math.sqrt(2.0 * math.log(2.0)))

# Returns a slice of the tomogram, (y, x) float32, on the device where it is prepared.
ReadSlice = Callable[[int], Tensor]
# The last constraint is for callers that hold either kind.
Slab = TypeVar("Slab", FloatArray, Tensor, FloatArray | Tensor)


def neighbouring_slices(slab: Slab, z: int, count: int) -> Slab:
    """Return `count` slices, an odd number, around slice z; beyond a slab its outermost slice repeats."""
    first, end = z - count // 2, z + count // 2 + 1
    if first >= 0 and end <= len(slab):
        return slab[first:end]
    return slab[[min(max(n, 0), len(slab) - 1) for n in range(first, end)]]


def _median_and_sigma(
    slices: Sequence[Tensor], stride: int, masks: Sequence[npt.NDArray[Any] | None]
) -> tuple[float, float]:
    """Return the median and the robust standard deviation of every `stride`-th value outside of the masks."""
    sampled = []
    for image, mask in zip(slices, masks, strict=True):
        values = image.numpy().ravel()[::stride]
        sampled.append(values if mask is None else values[mask.ravel()[::stride] == 0])
    values = np.concatenate(sampled)
    if not values.size:
        return 0.0, 0.0
    median = float(np.median(values))
    sigma = MAD_TO_SIGMA * float(np.median(np.abs(values - median)))
    if sigma == 0:
        # More than half of the values are equal: take the plain deviation of the others.
        rest = values[values != median]
        sigma = float(np.sqrt(np.mean((rest.astype(np.float64) - median) ** 2))) if rest.size else 0.0
    return median, sigma


@dataclass(frozen=True)
class PreparedTomogram:
    """A tomogram on a model's grid, normalised and read in slabs; create it with `prepare`."""

    # The original tomogram: any real dtype, possibly memory-mapped.
    tomogram: Tomogram
    # Of the model's grid; (z, y, x).
    voxel_size_angstrom: float
    shape: tuple[int, int, int]
    normalisation: Normalisation
    # +1 where protein is dark; -1 where it is bright, and the values are inverted.
    contrast_sign: int
    _axes: tuple[Axis, ...]
    # Sparse weights along y and x; None where the model's grid is the tomogram's own.
    _matrices: Sequence[Any] | None
    _local_mean: LocalMean | None
    _origin: float = 0.0
    _outlier: float = math.inf
    _centre: float = 0.0
    _scale: float = 1.0
    # Values that fill regions without data, and the median of the data, which replaces them.
    fill_values: tuple[float, ...] = ()
    _replacement: float = 0.0
    # Called before slices are read, and raises where the file is not what it was.
    _before_reading: Callable[[], None] = lambda: None
    # Prepared slices, with dark protein, by number; None keeps none. See `holding_slices`.
    _held: dict[int, Tensor] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def prepare(
        cls,
        tomogram: Tomogram,
        *,
        voxel_size_angstrom: float | None = None,
        normalisation: Normalisation | None = None,
        contrast_sign: int = 1,
        before_reading: Callable[[], None] = lambda: None,
    ) -> PreparedTomogram:
        """Lay a model's grid over a tomogram and estimate the scale of its grey values.

        Without a voxel size, or with one within 1% of the tomogram's, nothing is resampled. `before_reading`
        is called before slices of the tomogram are read, now and later. InputError if the data are complex,
        empty or constant, or a sampled slice holds NaN or Inf.
        """
        normalisation = normalisation or Normalisation()
        if contrast_sign not in (-1, 1):
            raise ConfigError(f"contrast_sign is {contrast_sign!r}; give +1 (protein dark) or -1 (bright).")
        if tomogram.data.dtype.kind not in "buif" or min(tomogram.shape) == 0:
            raise InputError(
                f"{tomogram.name}: {tomogram.data.dtype} data of shape {tomogram.shape} cannot be searched; "
                "give a volume of real numbers with at least one voxel."
            )
        own = target = tomogram.voxel_size_angstrom
        if voxel_size_angstrom is not None:
            target = check_voxel_size(voxel_size_angstrom, source="voxel_size_angstrom")
        step = target / own
        if abs(step - 1) <= SAME_VOXEL_SIZE:
            step, target = 1.0, own
        z, y, x = axes = tuple(Axis.make(length, step) for length in tomogram.shape)
        sigma = normalisation.highpass_nm * 10.0 / target * FWHM_TO_SIGMA
        local_mean = LocalMean.make((y.size, x.size), sigma) if sigma > 0 else None
        matrices = None if step == 1.0 else (y.matrix(), x.matrix())
        shape = z.size, y.size, x.size
        unscaled = cls(tomogram, target, shape, normalisation, contrast_sign, axes, matrices, local_mean)
        unscaled = replace(unscaled, _before_reading=before_reading)
        return unscaled._with_fill_values()._with_estimated_scale()

    def _with_fill_values(self) -> PreparedTomogram:
        """Look for regions without data in evenly spread slices of the tomogram."""
        depth = self.tomogram.shape[0]
        count = min(SAMPLED_SLICES, depth)
        chosen = ((np.arange(count) + 0.5) * depth / count).astype(int)
        slices = [self._read_slice(z) for z in chosen.tolist()]
        fills = find_fill_values(slices)
        if not fills:
            return self
        masks = [no_data_mask(image, fills) for image in slices]
        stride = max(1, slices[0].numel() // SAMPLED_VALUES) | 1
        median, _ = _median_and_sigma(slices, stride, [None if m is None else m.numpy() for m in masks])
        return replace(self, fill_values=fills, _replacement=median)

    def _with_estimated_scale(self) -> PreparedTomogram:
        """Estimate origin, outlier limit, centre and scale from evenly spread slices."""
        count = min(SAMPLED_SLICES, self.shape[0])
        # The middles of `count` equal parts: the first and the last slices are often empty.
        chosen = ((np.arange(count) + 0.5) * self.shape[0] / count).astype(int)
        slices = [self._resample(z, self._read_data, self._matrices) for z in chosen.tolist()]
        masks = [self._no_data_slice(z) for z in chosen.tolist()]
        # An odd stride: one in step with rows of an even length would sample only some of the columns.
        stride = max(1, self.shape[1] * self.shape[2] // SAMPLED_VALUES) | 1
        origin, sigma = _median_and_sigma(slices, stride, masks)
        if sigma == 0:
            # The values left out by the stride may still differ.
            sigma = max(float(np.ptp(image.numpy())) for image in slices)
        if sigma == 0:
            raise InputError(
                f"{self.tomogram.name}: all values of the sampled slices are {origin:g}; there is nothing to "
                "find in a constant volume."
            )
        centred = replace(self, _origin=origin)
        local_mean = self._local_mean
        # With the outliers; they are also the first of the two means below.
        means = [None if local_mean is None else local_mean(image - origin) for image in slices]
        flattened = [
            centred._subtract_local_mean(image, local_mean, mean)
            for image, mean in zip(slices, means, strict=True)
        ]
        _, flattened_sigma = _median_and_sigma(flattened, stride, masks)
        robust = replace(centred, _outlier=OUTLIER_SIGMAS * (flattened_sigma or sigma))
        # At a time, either these or those before are held.
        del flattened
        flattened = [
            robust._subtract_local_mean(image, local_mean, mean)
            for image, mean in zip(slices, means, strict=True)
        ]
        centre, scale = _median_and_sigma(flattened, stride, masks)
        self._check_scale(scale or sigma, slices)
        return replace(robust, _centre=centre, _scale=scale or sigma)

    def _check_scale(self, scale: float, slices: Sequence[Tensor]) -> None:
        """Refuse grey values that single precision cannot normalise."""
        low, high = min(float(i.min()) for i in slices), max(float(i.max()) for i in slices)
        largest = max(abs(low), abs(high))
        if not (MIN_SCALE <= scale <= MAX_SCALE and largest <= MAX_SCALE):
            raise InputError(
                f"{self.tomogram.name}: the grey values lie between {low:.3g} and {high:.3g} with a standard "
                f"deviation of {scale:.3g}, too {'small' if scale < MIN_SCALE else 'large'} to be normalised "
                "in single precision; multiply them by a constant so that they are near 1."
            )

    def with_contrast_sign(self, contrast_sign: int) -> PreparedTomogram:
        """Return the same tomogram with another contrast sign; nothing is computed again."""
        return replace(self, contrast_sign=contrast_sign)

    def holding_slices(self, max_bytes: int) -> PreparedTomogram:
        """Return the same tomogram, whose prepared slices are held if all take at most so much memory."""
        fits = 4 * math.prod(self.shape) <= max_bytes
        return replace(self, _held={} if fits else None)

    @property
    def on_own_voxels(self) -> bool:
        """Whether the model's grid is the tomogram's own, so that nothing is resampled."""
        return self._matrices is None

    def slab(self, z0: int, z1: int) -> FloatArray:
        """Prepare slices z0 to z1 of the model's grid; a slice is bit-identical however the volume is cut.

        InputError if the slab lies outside the grid, or a value is NaN or infinite.
        """
        self._check_slices(z0, z1)
        if self._held is not None:
            return self._held_slab(self._held, z0, z1)
        out: FloatArray = self._prepare_slices(z0, z1, self._read_data, torch.device("cpu")).numpy()
        release_pages(self.tomogram.data)
        return out

    def _held_slab(self, held: dict[int, Tensor], z0: int, z1: int) -> FloatArray:
        """Copy slices that are held, and prepare the others."""
        out = np.empty((z1 - z0, *self.shape[1:]), np.float32)
        # Inversion is exact.
        dark = self.with_contrast_sign(1)
        for z in range(z0, z1):
            if z not in held:
                held[z] = dark._prepare_slices(z, z + 1, self._read_data, torch.device("cpu"))[0]
                release_pages(self.tomogram.data)
            np.multiply(held[z].numpy(), np.float32(self.contrast_sign), out=out[z - z0])
        return out

    def slab_on_device(self, z0: int, z1: int, upload: Uploader) -> Tensor:
        """Prepare slices as `slab` does, on the device of `upload`; bit-identical to `slab` on a CPU."""
        self._check_slices(z0, z1)
        data, dtype = self.tomogram.data, self.tomogram.data.dtype
        taps = self._axes[0].taps[z0:z1]
        first, end = (int(taps.min()), int(taps.max()) + 1) if taps.size else (0, 0)
        self._before_reading()
        with upload.stream():
            raw = upload.upload(data, first, end)
            release_pages(data)
            if dtype.kind == "f" and not bool(torch.isfinite(raw).all()):
                for z in range(first, end):
                    self._read_slice(z)
            out = self._prepare_slices(
                z0, z1, lambda z: self._replace_fill(as_float32(raw[z - first], dtype)), upload.device
            )
        return upload.finish(out)

    def slab_around(self, z: int, count: int) -> FloatArray:
        """Prepare `count` slices, an odd number, with slice z in the middle; see `neighbouring_slices`."""
        self._check_slices(z, z + 1)
        first, end = max(0, z - count // 2), min(z + count // 2 + 1, self.shape[0])
        return neighbouring_slices(self.slab(first, end), z - first, count)

    def _check_slices(self, z0: int, z1: int) -> None:
        if not 0 <= z0 <= z1 <= self.shape[0]:
            raise InputError(f"Slices {z0} to {z1} are outside a grid with {self.shape[0]} slices.")

    def _read_slice(self, z: int) -> Tensor:
        """Copy slice z of the tomogram as float32; NaN and Inf are refused."""
        self._before_reading()
        stored = self.tomogram.data[z]
        with np.errstate(over="ignore"):
            values = np.array(stored, dtype=np.float32, order="C")
        if stored.dtype.kind == "f" and not np.isfinite(values).all():
            y, x = np.argwhere(~np.isfinite(values))[0]
            if np.isfinite(stored[y, x]):
                raise InputError(
                    f"{self.tomogram.name}: the value at (z, y, x) = ({z}, {y}, {x}) is {stored[y, x]:g}, "
                    "beyond the range of single precision; divide the grey values by a constant."
                )
            raise InputError(
                f"{self.tomogram.name}: the value at (z, y, x) = ({z}, {y}, {x}) is {stored[y, x]}; replace "
                "NaN and infinite values before searching this tomogram."
            )
        return torch.from_numpy(values)

    def _read_data(self, z: int) -> Tensor:
        """Copy slice z of the tomogram, with the median where it holds no data."""
        return self._replace_fill(self._read_slice(z))

    def _replace_fill(self, image: Tensor) -> Tensor:
        if not self.fill_values:
            return image
        mask = no_data_mask(image, self.fill_values)
        return image if mask is None else image.masked_fill(mask, self._replacement)

    def no_data(self, z0: int, z1: int) -> npt.NDArray[np.uint8] | None:
        """Return where slices z0 to z1 of the grid hold no data, uint8, 0 or 1; None without such regions."""
        if not self.fill_values:
            return None
        axes = (axis.to_grid() for axis in self._axes)
        out = resample_mask(self._no_data_in_tomogram, axes, z0, z1, 0.5)
        release_pages(self.tomogram.data)
        return out

    def no_data_share(self) -> float:
        """Return the share of the tomogram's voxels that hold no data; reads it as a whole where some do."""
        if not self.fill_values:
            return 0.0
        voxels = 0
        for z in range(self.tomogram.shape[0]):
            mask = no_data_mask(self._read_slice(z), self.fill_values, rim=0)
            voxels += 0 if mask is None else int(mask.sum())
        release_pages(self.tomogram.data)
        return voxels / math.prod(self.tomogram.shape)

    def _no_data_in_tomogram(self, z: int) -> FloatArray:
        """Return where slice z of the tomogram holds no data, 0 or 1."""
        image = self._read_slice(z)
        mask = no_data_mask(image, self.fill_values)
        return np.zeros(image.shape, np.float32) if mask is None else mask.numpy().astype(np.float32)

    def _no_data_slice(self, z: int) -> npt.NDArray[np.uint8] | None:
        mask = self.no_data(z, z + 1)
        return None if mask is None else mask[0]

    def _prepare_slices(self, z0: int, z1: int, read_slice: ReadSlice, device: torch.device) -> Tensor:
        """Prepare slices z0 to z1 on the device where `read_slice` returns slices of the tomogram."""
        matrices, local_mean = self._matrices, self._local_mean
        if device.type == "cuda":
            # A process-wide setting may round float32 products to TF32 on CUDA; it leaves float64 alone.
            exact = torch.float64
            if matrices is not None:
                matrices = [torch.from_numpy(matrix.toarray()).to(device, exact) for matrix in matrices]
            local_mean = None if local_mean is None else local_mean.to(device, exact)
        gain, limit = self.contrast_sign / self._scale, self.normalisation.clip
        out = torch.empty((z1 - z0, *self.shape[1:]), device=device)
        for z in range(z0, z1):
            flattened = self._subtract_local_mean(self._resample(z, read_slice, matrices), local_mean)
            torch.clamp((flattened - self._centre) * gain, -limit, limit, out=out[z - z0])
        return out

    def _resample(self, z: int, read_slice: ReadSlice, matrices: Sequence[Any] | None) -> Tensor:
        """Return slice z of the model's grid, anti-aliased, in the tomogram's grey values."""
        if matrices is None:
            return read_slice(z)
        terms = (read_slice(tap) * weight for tap, weight in self._axes[0].weights_of(z).items())
        total = next(terms)
        for term in terms:
            total += term
        return resample_slice(total, *matrices)

    def _subtract_local_mean(
        self, image: Tensor, local_mean: LocalMean | None, mean: Tensor | None = None
    ) -> Tensor:
        """Subtract the origin and the local mean, which outliers do not affect.

        `mean` is the local mean with the outliers, where it is known.
        """
        # A new tensor, so that PyTorch aligns it: otherwise the products below may round differently.
        values = image - self._origin
        if local_mean is None:
            return values
        mean = local_mean(values) if mean is None else mean
        if math.isfinite(self._outlier):
            mean = local_mean(torch.clamp(values, mean - self._outlier, mean + self._outlier))
        return values - mean

    def to_tomogram(self, zyx_on_model_grid: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Convert (..., 3) positions on the model's grid to voxels of the tomogram, both 0-based."""
        return np.asarray(zyx_on_model_grid, dtype=np.float64) * self._axes[0].step + self._origins

    def from_tomogram(self, zyx: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Convert voxels of the tomogram to positions on the model's grid; the inverse of `to_tomogram`."""
        return (np.asarray(zyx, dtype=np.float64) - self._origins) / self._axes[0].step

    @property
    def _origins(self) -> npt.NDArray[np.float64]:
        return np.array([axis.origin for axis in self._axes])

    def mask_from_tomogram(self, mask: npt.NDArray[Any], z0: int, z1: int) -> npt.NDArray[np.uint8]:
        """Resample a mask of the tomogram linearly to slices z0 to z1 of the model's grid, uint8, 0 or 1."""
        if tuple(mask.shape) != self.tomogram.shape:
            raise InputError(
                f"The mask has shape {tuple(mask.shape)} but {self.tomogram.name} has {self.tomogram.shape}; "
                "give a mask with one voxel for each of the tomogram's."
            )
        axes = (axis.to_grid() for axis in self._axes)
        out = resample_mask(lambda z: (np.asarray(mask[z]) != 0).astype(np.float32), axes, z0, z1, 0.5)
        release_pages(mask)
        return out

    def volume_to_tomogram(self, volume: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Resample a volume of bytes on the model's grid linearly to the tomogram."""
        if self.on_own_voxels:
            return volume
        z, y, x = (axis.to_tomogram() for axis in self._axes)
        out = np.empty(self.tomogram.shape, np.uint8)
        slices = interpolate_slices(lambda n: volume[n].astype(np.float32), (z, y, x), 0, len(out))
        for image, values in zip(out, slices, strict=True):
            np.rint(values, out=image, casting="unsafe")
        return out

    def mask_to_tomogram(self, mask: npt.NDArray[Any], threshold: float = 0.5) -> npt.NDArray[np.uint8]:
        """Resample a mask or volume on the model's grid linearly to the tomogram; 1 from the threshold on."""
        if tuple(mask.shape) != self.shape:
            raise InputError(f"The mask has shape {tuple(mask.shape)} but the model's grid has {self.shape}.")
        z, y, x = (axis.to_tomogram() for axis in self._axes)
        return resample_mask(lambda n: mask[n].astype(np.float32), (z, y, x), 0, len(z.first), threshold)
