"""The score threshold that a configuration asks for, on the scale of uncalibrated scores."""

from __future__ import annotations

from t3ssfast.detection.config import DetectConfig
from t3ssfast.errors import ModelError
from t3ssfast.evaluation.calibration import Calibration

__all__ = ["picking_threshold"]


def picking_threshold(calibration: Calibration | None, config: DetectConfig) -> float:
    """Lowest uncalibrated score of a candidate.

    Parameters
    ----------
    calibration
        Of the model that gives the scores; None where it has none.
    config
        `min_precision` and `min_recall`, or else `score_threshold`.

    Raises
    ------
    ModelError
        If min_precision or min_recall is given and there is no calibration.
    ConfigError
        If they are never reached.
    """
    for name in ("min_precision", "min_recall"):
        wanted = getattr(config, name)
        if wanted is None:
            continue
        if calibration is None:
            raise ModelError(
                f"{name} is {wanted:g}, but the classifier has no calibration; give score_threshold, or "
                f"calibrate the classifier (t3ssfast train calibrate)."
            )
        if name == "min_precision":
            return calibration.score_for_precision(wanted)
        return calibration.score_for_recall(wanted)
    if calibration is None:
        return config.score_threshold
    return calibration.score_for_probability(config.score_threshold)
