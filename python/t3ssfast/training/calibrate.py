"""Calibration of trained models: from scores to probabilities."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from t3ssfast.candidates import T3SS, Candidates
from t3ssfast.detection import detect
from t3ssfast.detection.config import ALL_KINDS, DetectConfig
from t3ssfast.errors import InputError, ModelError
from t3ssfast.evaluation.calibration import Calibration, calibrate
from t3ssfast.evaluation.calibration_domain import CalibrationDomain
from t3ssfast.models import LoadedModel, check_device, load_model, other_format, save_model
from t3ssfast.runtime.checkpoint import Arrays, CheckpointStore
from t3ssfast.runtime.counted import counted
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


CANDIDATE_FIELDS = ("centre_zyx", "score", "normal_zyx", "kind", "rot_degrees")


def update_metadata(model: StrPath, model_kind: str, *, trust_model: bool = False, **changes: Any) -> None:
    """Change fields of `ModelMetadata` of a model file; its weights stay the same.

    A file beside it with the same weights in the other format, as training writes it, is changed, too.
    """
    loaded = load_model(model, model_kind=model_kind, trust_model=trust_model)
    metadata = replace(loaded.metadata, **changes)
    twin = _twin(model, loaded)
    save_model(loaded.module, model, metadata)
    if twin is not None:
        save_model(loaded.module, twin, metadata)


def _twin(model: StrPath, loaded: LoadedModel) -> Path | None:
    """Return the file of the same model in the other format, if there is one."""
    path = other_format(model)
    if not path.is_file():
        return None
    try:
        other = load_model(path, model_kind=loaded.metadata.model_kind)
    except ModelError:
        return None
    if type(other.module) is not type(loaded.module) or other.metadata != loaded.metadata:
        return None
    states = loaded.module.state_dict(), other.module.state_dict()
    same = states[0].keys() == states[1].keys() and all(
        torch.equal(tensor, states[1][name]) for name, tensor in states[0].items()
    )
    return path if same else None


def find_candidates(
    classifier: StrPath | LoadedModel | None,
    tomograms: Sequence[Tomogram],
    *,
    verifier: StrPath | LoadedModel | None = None,
    segmenter: StrPath | LoadedModel | None = None,
    membranes: Sequence[Any] | None = None,
    config: DetectConfig | None = None,
    contrasts: Sequence[str] | None = None,
    store: CheckpointStore | None = None,
    device: str = "auto",
    log: Callable[[str], None] = lambda line: None,
    statistics: list[dict[str, float]] | None = None,
) -> list[Candidates]:
    """Detect candidates of each tomogram down to low scores, with uncalibrated scores.

    The threshold of `config` is ignored, and None means no verifier. `membranes` are used instead of
    segmenting; `log` gets a line after each tomogram. `contrasts` has that of each tomogram, instead of the
    configuration's. Candidates of tomograms that `store` holds are not searched for again. `statistics` gets
    those of each tomogram (`tomogram_statistics`).
    """
    lowest = MIN_CLASSIFIER_SCORE if verifier is None else MIN_VERIFIER_SCORE
    wanted = replace(config or DetectConfig(), min_precision=None, min_recall=None, max_fdr=None)
    wanted = replace(wanted, verify=verifier is not None, score_threshold=lowest)
    models: dict[str, Any] = {
        "classifier": _load_uncalibrated(classifier, "classifier"),
        "verifier": None if verifier is None else _load_uncalibrated(verifier, "verifier"),
        "segmenter": segmenter,
    }
    if segmenter is not None:
        models["segmenter"] = load_model(segmenter, model_kind="segmenter", device=check_device(device))
    found = []
    for k, tomogram in enumerate(tomograms):
        place = {
            "voxel_size_angstrom": tomogram.voxel_size_angstrom,
            "tomogram_shape": tomogram.shape,
            "tomogram_name": tomogram.name,
        }

        def parse(piece: Arrays, place: dict[str, Any] = place) -> tuple[Candidates, dict[str, float]]:
            fields: dict[str, Any] = {name: piece[name] for name in CANDIDATE_FIELDS}
            described = {name: float(value) for name, value in json.loads(str(piece["statistics"])).items()}
            return Candidates(**fields, **place), described

        kept = None if store is None else store.load(f"found-{k}", parse)
        if kept is not None:
            found.append(kept[0])
            if statistics is not None:
                statistics.append(kept[1])
            continue
        mask = None if membranes is None else membranes[k]
        own = wanted if contrasts is None else replace(wanted, contrast=contrasts[k])
        detection = detect(tomogram, membrane=mask, config=own, device=device, progress=False, **models)
        found.append(detection.candidates)
        described = detection.provenance["calibration_distance"]["statistics"]
        if statistics is not None:
            statistics.append(described)
        if store is not None:
            fields = {name: getattr(found[-1], name) for name in CANDIDATE_FIELDS}
            store.save(f"found-{k}", **fields, statistics=json.dumps(described))
        log(f"searched {k + 1} of {len(tomograms)}: {tomogram.name}, {counted(len(found[-1]), 'candidate')}")
    return found


def _load_uncalibrated(model: StrPath | LoadedModel | None, model_kind: str) -> LoadedModel:
    loaded = load_model(model, model_kind=model_kind)
    return replace(loaded, metadata=replace(loaded.metadata, calibration=None, kind_calibrations={}))


def calibrate_models(
    classifier: StrPath,
    tomograms: Sequence[Tomogram],
    truth: Sequence[Candidates],
    *,
    verifier: StrPath | None = None,
    kinds: Sequence[str] = (ALL_KINDS,),
    trust_model: bool = False,
    **search: Any,
) -> Calibration:
    """Calibrate the scores of models, and write the calibration to the metadata of a model file.

    Each kind of particle that the verifier tells apart is calibrated on the candidates that it takes for this
    kind. A kind without a particle in `truth` keeps the calibration that it had. Returns the calibration of
    the first of the kinds.

    Parameters
    ----------
    classifier, verifier
        Model files. The calibration is written to the verifier's, or to the classifier's without a verifier.
    tomograms, truth
        Tomograms that neither model was trained on, and all T3SS in them, with all particles of the other
        kinds to calibrate; other candidates count as false.
    kinds
        Kinds to search for and to calibrate, as those of `DetectConfig`. A search for T3SS alone takes a
        fraction of the time.
    trust_model
        Load the model files without the safety checks.
    **search
        `segmenter`, `membranes`, `config`, `contrasts`, `store`, `device` and `log` of `find_candidates`.

    Raises
    ------
    InputError
        If there are fewer than two tomograms, no true or no false candidates in them, or none of the kinds.
    """
    load = partial(load_model, trust_model=trust_model)
    search["config"] = replace(search.get("config") or DetectConfig(), kinds=tuple(kinds))
    examiner = None if verifier is None else load(verifier, model_kind="verifier")
    statistics: list[dict[str, float]] = []
    found = find_candidates(
        load(classifier, model_kind="classifier"),
        tomograms,
        verifier=examiner,
        statistics=statistics,
        **search,
    )
    known = (T3SS,) if examiner is None else examiner.metadata.kinds
    chosen = known if ALL_KINDS in kinds else tuple(kind for kind in known if kind in kinds)
    learned = {
        kind: _calibrate_kind(found, truth, kind)
        for kind in chosen
        if kind == known[0] or any((particles.kind == kind).any() for particles in truth)
    }
    if not learned:
        raise InputError(f"There is no {' and no '.join(kinds)} in the truth; give tomograms with some.")
    changes: dict[str, Any] = {}
    if known[0] in learned:
        learned[known[0]] = replace(learned[known[0]], domain=CalibrationDomain.fit(statistics))
        changes["calibration"] = learned[known[0]].to_dict()
    if examiner is not None and known[1:]:
        others = {kind: curve.to_dict() for kind, curve in learned.items() if kind != known[0]}
        changes["kind_calibrations"] = examiner.metadata.kind_calibrations | others
    model, model_kind = (classifier, "classifier") if verifier is None else (verifier, "verifier")
    update_metadata(model, model_kind, trust_model=trust_model, **changes)
    return next(iter(learned.values()))


def _calibrate_kind(found: Sequence[Candidates], truth: Sequence[Candidates], kind: str) -> Calibration:
    """Calibrate the scores of the candidates of a kind."""
    return calibrate([c.of_kinds(kind) for c in found], [t.of_kinds(kind) for t in truth])
