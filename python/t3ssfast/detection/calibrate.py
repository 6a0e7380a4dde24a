"""The score threshold that a configuration asks for."""

from __future__ import annotations

from t3ssfast.detection.config import DetectConfig
from t3ssfast.errors import ModelError
from t3ssfast.evaluation.calibration import Calibration

__all__ = ["picking_threshold"]


def picking_threshold(calibration: Calibration | None, config: DetectConfig) -> float:
    """The uncalibrated score from which on peaks are candidates, as a configuration wants it.

    Parameters
    ----------
    calibration
        Of the classifier, if it has one.
    config
        Of it, min_precision, min_recall and score_threshold count.

    Raises
    ------
    ModelError
        If min_precision or min_recall is given for a classifier without calibration.
    ConfigError
        If the classifier never reaches them.
    """
    for name in ("min_precision", "min_recall"):
        wanted = getattr(config, name)
        if wanted is None:
            continue
        if calibration is None:
            raise ModelError(
                f"{name} is {wanted:g}, but the classifier carries no calibration; give score_threshold, or "
                f"calibrate the classifier (t3ssfast train calibrate)."
            )
        if name == "min_precision":
            return calibration.score_for_precision(wanted)
        return calibration.score_for_recall(wanted)
    if calibration is None:
        return config.score_threshold
    return calibration.score_for_probability(config.score_threshold)
