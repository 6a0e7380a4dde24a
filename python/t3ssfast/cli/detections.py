"""The detections that the options of `t3ssfast detect` describe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from t3ssfast.cli import options
from t3ssfast.cli.tomogram_lists import find_tomograms, mask_of_each, result_folders
from t3ssfast.errors import InputError

if TYPE_CHECKING:
    from t3ssfast.cluster.tomogram_detection import TomogramDetection

__all__ = ["detections_of"]


def detections_of(
    *,
    tomograms: Sequence[Path] | None,
    list_file: Path | None,
    out: Path,
    segmenter: Path | None,
    classifier: Path | None,
    verifier: Path | None,
    verify: bool,
    membrane: list[Path] | None,
    search_mask: list[Path] | None,
    voxel_size: float | None,
    device: str,
    threshold: float | None,
    memory_budget: float | None,
    trust_model: bool,
    window: int | None,
    classifier_output: str,
    target_class: str | None,
    segmenter_output: str,
    resume: bool,
    force: bool,
    save_probability: bool,
    png: bool,
    many: bool,
    **config: Any,
) -> tuple[list[TomogramDetection], bool]:
    """Return the detections, and whether they are a list, whose results have folders of their own.

    `many` makes a list of a single tomogram, too. `config` are fields of `DetectConfig`, None the default.
    """
    from t3ssfast.cluster.tomogram_detection import ModelFile, TaskOptions, TomogramDetection
    from t3ssfast.io import display_path

    if not tomograms and list_file is None:
        raise typer.BadParameter("there is no tomogram; give at least one, or --list FILE.")
    paths, is_list = find_tomograms(tomograms or [], list_file)
    is_list = is_list or many
    masks = mask_of_each(paths, membrane, "membrane")
    regions = mask_of_each(paths, search_mask, "search")
    folders = result_folders(paths, out, is_list=is_list)
    if verifier is not None and not verify:
        raise InputError(f"{display_path(verifier)} was given with --no-verify; leave one of the two out.")
    max_fdr = config.get("max_fdr")
    if max_fdr is not None and threshold is not None:
        raise InputError(f"--fdr {max_fdr:g} and --threshold {threshold:g} were given; give one of the two.")
    if save_probability and membrane:
        raise InputError(
            "--save-probability was given with --membrane, with which nothing is segmented; leave one of the "
            "two out."
        )
    readings = options.model_readings(window, classifier_output, target_class, segmenter_output)

    def model(path: Path | None, model_kind: str) -> ModelFile:
        return ModelFile(model_kind, path, trust_model, tuple(readings[model_kind].items()))

    shared = TaskOptions(
        classifier=model(classifier, "classifier"),
        segmenter=model(segmenter, "segmenter"),
        verifier=None if verifier is None else model(verifier, "verifier"),
        config=options.detect_config(
            score_threshold=threshold, memory_budget=memory_budget, verify=verify, **config
        ),
        device=device,
        voxel_size_angstrom=voxel_size,
        save_probability=save_probability,
        resume=resume,
        force=force,
        pictures=png,
    )
    detections = [
        TomogramDetection(path, folder, shared, mask, region)
        for path, folder, mask, region in zip(paths, folders, masks, regions, strict=True)
    ]
    return detections, is_list
