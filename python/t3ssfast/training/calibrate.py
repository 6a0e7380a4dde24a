"""What trained models still need: a preselection, candidates to learn from, and calibrated scores."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import Candidates
from t3ssfast.detection import detect
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.preselect import CoarseScan, Preselection, learn_preselection
from t3ssfast.errors import ConfigError
from t3ssfast.evaluation.calibration import Calibration, calibrate
from t3ssfast.models import LoadedModel, load_model, save_model
from t3ssfast.tomogram import Tomogram
from t3ssfast.training.bundled.examples import Example

__all__ = [
    "CALIBRATION_FLOOR",
    "VERIFIED_FLOOR",
    "calibrate_models",
    "find_candidates",
    "finish_classifier",
    "rewrite_metadata",
]

# Peaks below this are hardly ever particles; above it, a calibration wants to see them all.
CALIBRATION_FLOOR = 0.1
# A verifier's answers lie nearer to 0 and 1.
VERIFIED_FLOOR = 0.02
# Tomograms that statistics are learned from.
PRESELECTION_TOMOGRAMS = 32
# Share of the windows about particles, in tomograms left out, that the preselection has to keep.
PRESELECTION_KEEP = 0.995


def rewrite_metadata(model: str | os.PathLike[str], kind: str, **changes: Any) -> None:
    """Write a model file again with other metadata; its weights stay as they are."""
    loaded = load_model(model, model_kind=kind)
    save_model(loaded.module, model, replace(loaded.metadata, **changes))


def find_candidates(
    classifier: str | os.PathLike[str] | LoadedModel,
    tomograms: Sequence[Tomogram],
    *,
    verifier: str | os.PathLike[str] | LoadedModel | None = None,
    segmenter: str | os.PathLike[str] | LoadedModel | None = None,
    membranes: Sequence[Any] | None = None,
    config: DetectConfig | None = None,
    device: str = "auto",
    report: Callable[[str], None] = lambda line: None,
) -> list[Candidates]:
    """What detections find down to low scores, with the scores that the models give and no calibration.

    Parameters
    ----------
    classifier, verifier, segmenter, device
        As for `detect`, but that no verifier is used where none is given.
    tomograms, membranes
        One mask for each tomogram, where masks are given.
    config
        Its threshold is not used.
    report
        Called with a line after each tomogram.
    """
    base = DetectConfig() if config is None else config
    wanted = replace(
        base,
        score_threshold=CALIBRATION_FLOOR if verifier is None else VERIFIED_FLOOR,
        min_precision=None,
        min_recall=None,
        verify=verifier is not None,
    )
    judge = _uncalibrated(load_model(classifier, model_kind="classifier"))
    second = None if verifier is None else _uncalibrated(load_model(verifier, model_kind="verifier"))
    found = []
    for k, tomogram in enumerate(tomograms):
        detection = detect(
            tomogram,
            segmenter=segmenter,
            classifier=judge,
            verifier=second,
            membrane=None if membranes is None else membranes[k],
            config=wanted,
            device=device,
            progress=False,
        )
        found.append(detection.candidates)
        report(f"searched {k + 1} of {len(tomograms)}: {tomogram.name}, {len(found[-1])} candidates")
    return found


def _uncalibrated(model: LoadedModel) -> LoadedModel:
    return replace(model, metadata=replace(model.metadata, calibration=None))


def calibrate_models(
    classifier: str | os.PathLike[str],
    tomograms: Sequence[Tomogram],
    truth: Sequence[Candidates],
    *,
    verifier: str | os.PathLike[str] | None = None,
    segmenter: str | os.PathLike[str] | LoadedModel | None = None,
    membranes: Sequence[Any] | None = None,
    config: DetectConfig | None = None,
    device: str = "auto",
    report: Callable[[str], None] = lambda line: None,
) -> Calibration:
    """Learn what scores are worth, and write it into the file of the model that gives them.

    Parameters
    ----------
    classifier, verifier
        Model files. The metadata of the verifier are rewritten where there is one, else the classifier's.
    tomograms, truth
        Of tomograms that neither has been trained on, with every T3SS picked: others count as false.
    segmenter, membranes, config, device, report
        As for `find_candidates`.

    Raises
    ------
    InputError
        If there are fewer than two tomograms, or no true or no false candidates in them.
    """
    found = find_candidates(
        classifier,
        tomograms,
        verifier=verifier,
        segmenter=segmenter,
        membranes=membranes,
        config=config,
        device=device,
        report=report,
    )
    learned = calibrate(found, [t[t.kind == "t3ss"] for t in truth])
    if verifier is None:
        rewrite_metadata(classifier, "classifier", calibration=learned.to_dict())
    else:
        rewrite_metadata(verifier, "verifier", calibration=learned.to_dict())
    return learned


def finish_classifier(
    classifier: str | os.PathLike[str],
    segmenter: str | os.PathLike[str],
    training: Sequence[Example],
    calibration: Sequence[Example],
    *,
    preselection: str = "look",
    device: str = "cpu",
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Give a classifier its preselection and, from tomograms it has not seen, its calibration.

    Parameters
    ----------
    classifier, segmenter
        Model files; the classifier's metadata are rewritten.
    training, calibration
        Simulated tomograms.
    preselection
        "look": the coarse look, with its default strides and level; "model": statistics of blocks, learned
        from the membranes that detection finds in the training tomograms.
    device
        Where to detect.
    report
        Called with a line at every stage.
    """
    if preselection not in ("look", "model"):
        raise ConfigError(f'The preselection is {preselection!r}; give "look" or "model".')
    finder = load_model(segmenter, model_kind="segmenter", device=device)
    learned: Preselection = CoarseScan()
    if preselection == "model":
        chosen = training[:PRESELECTION_TOMOGRAMS]
        report(f"learning the preselection from {len(chosen)} tomograms")
        masks = [found_membrane(example.tomogram, finder, classifier, device) for example in chosen]
        seen = [k for k, mask in enumerate(masks) if mask.any()]
        learned = learn_preselection(
            [chosen[k].tomogram for k in seen],
            [masks[k] for k in seen],
            [chosen[k].truth for k in seen],
            classifier=classifier,
            keep=PRESELECTION_KEEP,
        )
    rewrite_metadata(classifier, "classifier", preselect=learned.to_dict())
    report(f"calibrating the scores on {len(calibration)} tomograms")
    calibrate_models(
        classifier,
        [example.tomogram for example in calibration],
        [example.truth for example in calibration],
        segmenter=finder,
        device=device,
        report=report,
    )


def found_membrane(
    tomogram: Tomogram,
    segmenter: LoadedModel,
    classifier: str | os.PathLike[str] | LoadedModel,
    device: str,
) -> npt.NDArray[np.uint8]:
    """(z, y, x) mask of the membrane as a detection finds it."""
    detection = detect(
        tomogram,
        segmenter=segmenter,
        classifier=classifier,
        config=DetectConfig(verify=False),
        device=device,
        progress=False,
    )
    assert detection.membrane is not None, "it was not given"
    return detection.membrane
