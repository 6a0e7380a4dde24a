"""Calibration of trained models: from scores to probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from t3ssfast.candidates import Candidates
from t3ssfast.detection import detect
from t3ssfast.detection.config import DetectConfig
from t3ssfast.evaluation.calibration import Calibration, calibrate
from t3ssfast.models import LoadedModel, check_device, load_model, save_model
from t3ssfast.tomogram import StrPath, Tomogram

__all__ = [
    "MIN_CLASSIFIER_SCORE",
    "MIN_VERIFIER_SCORE",
    "calibrate_models",
    "find_candidates",
    "update_metadata",
]

# Peaks below this score are hardly ever particles; the calibration uses all peaks above it.
MIN_CLASSIFIER_SCORE = 0.1
# The scores of a verifier are closer to 0 and 1.
MIN_VERIFIER_SCORE = 0.02


def update_metadata(model: StrPath, model_kind: str, **changes: Any) -> None:
    """Change metadata of a model file; its weights stay the same.

    Parameters
    ----------
    model
        Model file.
    model_kind
        "segmenter", "classifier" or "verifier".
    **changes
        New values of fields of `ModelMetadata`.
    """
    loaded = load_model(model, model_kind=model_kind)
    save_model(loaded.module, model, replace(loaded.metadata, **changes))


def find_candidates(
    classifier: StrPath | LoadedModel | None,
    tomograms: Sequence[Tomogram],
    *,
    verifier: StrPath | LoadedModel | None = None,
    segmenter: StrPath | LoadedModel | None = None,
    membranes: Sequence[Any] | None = None,
    config: DetectConfig | None = None,
    device: str = "auto",
    log: Callable[[str], None] = lambda line: None,
) -> list[Candidates]:
    """Detect candidates down to low scores, with uncalibrated scores.

    Parameters
    ----------
    classifier, verifier, segmenter, device
        As for `detect`, except that None means no verifier.
    tomograms
        Tomograms to search.
    membranes
        Mask of each tomogram; None segments them.
    config
        Configuration of the detection; its threshold is ignored.
    log
        Called with a line of text after each tomogram.

    Returns
    -------
    Candidates of each tomogram.
    """
    wanted = replace(
        DetectConfig() if config is None else config,
        score_threshold=MIN_CLASSIFIER_SCORE if verifier is None else MIN_VERIFIER_SCORE,
        min_precision=None,
        min_recall=None,
        verify=verifier is not None,
    )
    loaded_classifier = _load_uncalibrated(classifier, "classifier")
    loaded_verifier = None if verifier is None else _load_uncalibrated(verifier, "verifier")
    if segmenter is not None:
        segmenter = load_model(segmenter, model_kind="segmenter", device=check_device(device))
    found = []
    for k, tomogram in enumerate(tomograms):
        detection = detect(
            tomogram,
            segmenter=segmenter,
            classifier=loaded_classifier,
            verifier=loaded_verifier,
            membrane=None if membranes is None else membranes[k],
            config=wanted,
            device=device,
            progress=False,
        )
        found.append(detection.candidates)
        log(f"searched {k + 1} of {len(tomograms)}: {tomogram.name}, {len(found[-1])} candidates")
    return found


def _load_uncalibrated(model: StrPath | LoadedModel | None, model_kind: str) -> LoadedModel:
    loaded = load_model(model, model_kind=model_kind)
    return replace(loaded, metadata=replace(loaded.metadata, calibration=None))


def calibrate_models(
    classifier: StrPath,
    tomograms: Sequence[Tomogram],
    truth: Sequence[Candidates],
    *,
    verifier: StrPath | None = None,
    **search: Any,
) -> Calibration:
    """Calibrate the scores of models, and write the calibration to the metadata of a model file.

    Parameters
    ----------
    classifier, verifier
        Model files. The calibration is written to the verifier's, or to the classifier's without a verifier.
    tomograms, truth
        Tomograms that neither model was trained on, and all T3SS in them; other candidates count as false.
    **search
        Further arguments of `find_candidates`.

    Raises
    ------
    InputError
        If there are fewer than two tomograms, or no true or no false candidates in them.
    """
    found = find_candidates(classifier, tomograms, verifier=verifier, **search)
    calibration = calibrate(found, [t[t.kind == "t3ss"] for t in truth])
    if verifier is None:
        update_metadata(classifier, "classifier", calibration=calibration.to_dict())
    else:
        update_metadata(verifier, "verifier", calibration=calibration.to_dict())
    return calibration
