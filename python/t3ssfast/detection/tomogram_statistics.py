"""Statistics of a tomogram, by which it is compared with those that the scores were calibrated on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.runtime.memory import retry_on_oom
from t3ssfast.runtime.threads import map_in_threads

__all__ = ["tomogram_statistics"]

FloatArray = npt.NDArray[np.float64]

# Largest side of what is looked at of a slice, pixels.
MAX_SIDE = 1024
# Slices whose power spectra are averaged, and bands of equal width up to half a cycle per voxel.
SLICES = 10
BANDS = 8
# Slices that are looked at at a time; each takes about 70 MB.
SLICES_AT_A_TIME = 4
# Slices in the middle of the volume, and their distances, that tell how noise is correlated along the beam.
MIDDLE_SLICES = 8
LAGS = (1, 2, 3)
# Membrane probability that counts as seen, and as seen clearly.
SEEN, CLEAR = 0.2, 0.8
PRIOR_SHARE = 0.02
# Log-odds between those of most false candidates and those of most T3SS.
MIDDLE, MIDDLE_HALF_WIDTH = 1.5, 2.0
# Confident candidates that are added to those of a tomogram, so that two or three of them decide nothing.
PRIOR_CANDIDATES, PRIOR_LOG_ODDS = 2, 6.0


@retry_on_oom("describing the tomogram")
def tomogram_statistics(
    grid: PreparedTomogram,
    probability_histogram: npt.NDArray[np.int64] | None,
    log_odds: FloatArray,
) -> dict[str, float]:
    """Describe noise, power spectrum, confidence of the segmenter, and scores by a few numbers.

    The names begin with "image" or "confidence"; each of the two groups is compared by itself.

    Parameters
    ----------
    grid
        The tomogram on the classifier's grid.
    probability_histogram
        (n,) numbers of voxels by membrane probability, from 0 to 1; None where the membrane was given.
    log_odds
        Log-odds of all candidates.
    """
    return (
        _spectrum(grid)
        | ({} if probability_histogram is None else _membrane(probability_histogram))
        | _scores(log_odds)
    )


def _spectrum(grid: PreparedTomogram) -> dict[str, float]:
    """Power in bands, as log10 of its share; kurtosis; correlation along the beam."""
    depth = grid.shape[0]
    chosen = np.linspace(0, depth - 1, min(SLICES, depth)).astype(int).tolist()
    slices = [_middle_of_slice(grid, z) for z in chosen]
    of_slices = map_in_threads(_kurtosis_and_power, slices, SLICES_AT_A_TIME)
    kurtosis = [value for value, _ in of_slices if value is not None]
    power = sum((power for _, power in of_slices), np.zeros(BANDS))
    share = power / max(power.sum(), 1e-12)
    found = {f"image_power_{k}": float(np.log10(max(share[k], 1e-9))) for k in range(BANDS)}
    found["image_kurtosis"] = float(np.log(np.mean(kurtosis))) if kurtosis else 0.0
    return found | _beam_correlation(grid)


def _kurtosis_and_power(values: npt.NDArray[np.float32]) -> tuple[float | None, FloatArray]:
    """Kurtosis of a slice, and mean power in each band; None and zeros where it is constant."""
    image = _centred(values)
    variance = float(np.mean(image**2))
    if variance > 0:
        return float(np.mean(image**4)) / variance**2, _power(image)
    return None, np.zeros(BANDS)


def _middle_of_slice(grid: PreparedTomogram, z: int) -> npt.NDArray[np.float32]:
    """The middle of a slice; its size bounds the memory."""
    _, height, width = grid.shape
    y, x = max(0, (height - MAX_SIDE) // 2), max(0, (width - MAX_SIDE) // 2)
    # A view would keep the whole slice.
    return grid.slab(z, z + 1)[0, y : y + MAX_SIDE, x : x + MAX_SIDE].copy()


def _centred(values: npt.NDArray[np.float32]) -> FloatArray:
    """Values less their mean."""
    image = values.astype(np.float64)
    return np.asarray(image - image.mean())


def _power(image: FloatArray) -> FloatArray:
    """Mean power of an image, under a Hann window, in each band."""
    height, width = image.shape
    window = np.hanning(height)[:, None] * np.hanning(width)
    power = np.abs(np.fft.rfft2(image * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    band = np.minimum((frequency * 2 * BANDS).astype(int), BANDS).ravel()
    total = np.bincount(band, weights=power.ravel(), minlength=BANDS + 1)[:BANDS]
    return np.asarray(total / np.maximum(np.bincount(band, minlength=BANDS + 1)[:BANDS], 1))


def _beam_correlation(grid: PreparedTomogram) -> dict[str, float]:
    """Correlation of slices in the middle of the volume with those at each distance along the beam."""
    depth = grid.shape[0]
    first = max(0, depth // 2 - MIDDLE_SLICES // 2)
    slices = [_middle_of_slice(grid, z) for z in range(first, min(depth, first + MIDDLE_SLICES))]
    images = map_in_threads(_scaled_to_rms, slices, SLICES_AT_A_TIME)
    found = {}
    for lag in LAGS:
        pairs = list(zip(images[lag:], images, strict=False))
        values = map_in_threads(lambda pair: float(np.mean(pair[0] * pair[1])), pairs, SLICES_AT_A_TIME)
        found[f"image_beam_correlation_{lag}"] = float(np.mean(values)) if values else 0.0
    return found


def _scaled_to_rms(values: npt.NDArray[np.float32]) -> FloatArray:
    """Values less their mean, whose mean square is 1."""
    image = _centred(values)
    return np.asarray(image / max(float(np.sqrt(np.mean(image**2))), 1e-12))


def _membrane(histogram: npt.NDArray[np.int64]) -> dict[str, float]:
    """Share of the voxels that may be membrane and are not clearly membrane.

    A few voxels in doubt tell little: as many as `PRIOR_SHARE` of the volume are added, half of them clear.
    """
    probability = np.linspace(0, 1, len(histogram))
    seen = float(histogram[probability >= SEEN].sum())
    clear = float(histogram[probability >= CLEAR].sum())
    prior = PRIOR_SHARE * float(histogram.sum()) + 1
    return {"confidence_membrane_doubt": (seen - clear + prior / 2) / (seen + prior)}


def _scores(log_odds: FloatArray) -> dict[str, float]:
    """Mean of the upper log-odds, and the share of the upper candidates that lie between true and false.

    T3SS of tomograms unlike those of the calibration score lower. Where there is no T3SS, and hardly an upper
    candidate, both are those of tomograms with confident ones.
    """
    upper, between = log_odds[log_odds >= 0], np.abs(log_odds - MIDDLE) < MIDDLE_HALF_WIDTH
    above = np.count_nonzero(log_odds >= MIDDLE - MIDDLE_HALF_WIDTH)
    return {
        "confidence_upper_log_odds": float(
            (upper.sum() + PRIOR_CANDIDATES * PRIOR_LOG_ODDS) / (len(upper) + PRIOR_CANDIDATES)
        ),
        "confidence_between": float(np.count_nonzero(between) / (above + PRIOR_CANDIDATES)),
    }
