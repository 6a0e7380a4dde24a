"""The kinds and the score threshold that a configuration asks for, on the scale of uncalibrated scores."""

from __future__ import annotations

from t3ssfast.detection.config import ALL_KINDS, DetectConfig
from t3ssfast.errors import ConfigError, ModelError
from t3ssfast.evaluation.calibration import Calibration

__all__ = ["picking_threshold", "reported_kinds"]


def picking_threshold(calibration: Calibration | None, config: DetectConfig) -> float:
    """Lowest uncalibrated score of a candidate.

    Raises ModelError where `min_precision` or `min_recall` is given without a calibration, and ConfigError
    where the calibration never reaches it. With `max_fdr` it is 0: the decoys set the threshold afterwards.
    """
    if config.max_fdr is not None:
        return 0.0
    if calibration is None:
        for name in ("min_precision", "min_recall"):
            if (wanted := getattr(config, name)) is not None:
                raise ModelError(
                    f"{name} is {wanted:g}, but the classifier has no calibration; give score_threshold, or "
                    f"calibrate the classifier (t3ssfast train calibrate)."
                )
        return config.score_threshold
    if config.min_precision is not None:
        return calibration.score_for_precision(config.min_precision)
    if config.min_recall is not None:
        return calibration.score_for_recall(config.min_recall)
    return calibration.score_for_probability(config.score_threshold)


def reported_kinds(known: tuple[str, ...], config: DetectConfig) -> tuple[str, ...]:
    """Return the kinds that a configuration asks for; ConfigError where the models do not know one."""
    if ALL_KINDS in config.kinds:
        return known
    for kind in config.kinds:
        if kind not in known:
            raise ConfigError(
                f"kinds: the models do not tell {kind!r} from other particles; give "
                f"{', '.join(known)} or {ALL_KINDS}, or a verifier that was trained on {kind!r}."
            )
    return tuple(kind for kind in known if kind in config.kinds)
