"""Statistics of a tomogram, by which it is compared with those that the scores were calibrated on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from t3ssfast.detection.normalise import PreparedTomogram

__all__ = ["tomogram_statistics"]

# Slices whose power spectra are averaged, and bands of equal width up to half a cycle per voxel.
SLICES = 10
BANDS = 8
# Slices in the middle of the volume, and their distances, that tell how noise is correlated along the beam.
MIDDLE_SLICES = 8
LAGS = (1, 2, 3)
# Membrane probability that counts as seen, and as seen clearly.
SEEN, CLEAR = 0.2, 0.8
# Quantiles of the candidates' log-odds; candidates within this of 0 are in doubt.
QUANTILES = (0.25, 0.5, 0.75, 0.9)
DOUBTFUL = 1.0


def tomogram_statistics(
    grid: PreparedTomogram,
    probability_histogram: npt.NDArray[np.int64] | None,
    log_odds: npt.NDArray[np.float64],
) -> dict[str, float]:
    """Describe noise, power spectrum, confidence of the segmenter, and scores by a few numbers.

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
    power, kurtosis = np.zeros(BANDS), []
    for z in np.linspace(0, depth - 1, min(SLICES, depth)).astype(int):
        image = grid.slab(int(z), int(z) + 1)[0].astype(np.float64)
        image -= image.mean()
        variance = float(np.mean(image**2))
        if variance == 0:
            continue
        kurtosis.append(float(np.mean(image**4)) / variance**2)
        power += _power(image)
    share = power / max(power.sum(), 1e-12)
    found = {f"power_{k}": float(np.log10(max(share[k], 1e-9))) for k in range(BANDS)}
    found["kurtosis"] = float(np.log(np.mean(kurtosis))) if kurtosis else 0.0
    middle = max(0, depth // 2 - MIDDLE_SLICES // 2)
    block = grid.slab(middle, min(depth, middle + MIDDLE_SLICES)).astype(np.float64)
    for lag in LAGS:
        found[f"beam_correlation_{lag}"] = _correlation(block[:-lag], block[lag:])
    return found


def _power(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean power of an image, under a Hann window, in each band."""
    height, width = image.shape
    window = np.hanning(height)[:, None] * np.hanning(width)
    power = np.abs(np.fft.rfft2(image * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    band = np.minimum((frequency * 2 * BANDS).astype(int), BANDS).ravel()
    total = np.bincount(band, weights=power.ravel(), minlength=BANDS + 1)[:BANDS]
    return np.asarray(total / np.maximum(np.bincount(band, minlength=BANDS + 1)[:BANDS], 1))


def _correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    if a.size == 0:
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / max(np.sqrt((a**2).sum() * (b**2).sum()), 1e-12))


def _membrane(histogram: npt.NDArray[np.int64]) -> dict[str, float]:
    """Log of the share of voxels that may be membrane, and share of these that are not clearly membrane."""
    probability = np.linspace(0, 1, len(histogram))
    seen = float(histogram[probability >= SEEN].sum())
    clear = float(histogram[probability >= CLEAR].sum())
    return {
        "membrane_share": float(np.log10((seen + 1) / (histogram.sum() + 1))),
        "membrane_doubt": 1 - (clear + 1) / (seen + 2),
    }


def _scores(log_odds: npt.NDArray[np.float64]) -> dict[str, float]:
    """Quantiles of the log-odds, and the share of candidates in doubt."""
    if not len(log_odds):
        return {}
    found = {f"log_odds_q{round(100 * q)}": float(np.quantile(log_odds, q)) for q in QUANTILES}
    found["in_doubt"] = float(np.mean(np.abs(log_odds) < DOUBTFUL))
    return found
