"""`t3ssfast detect`: find T3SS in tomograms."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from t3ssfast.cli import options
from t3ssfast.cli.detect_runs import DetectionRun, print_summary, run_all
from t3ssfast.cli.tomogram_lists import find_tomograms, mask_of_each, result_folders
from t3ssfast.errors import InputError


def detect(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Output folder; several tomograms get one subfolder each.")
    ],
    tomograms: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Tomograms (.mrc, .rec, .map, also .gz and .bz2; OME-Zarr, TIFF, EM, HDF5), folders of "
            "them, or patterns.",
            show_default=False,
            readable=False,
            metavar="TOMOGRAMS...",
        ),
    ] = None,
    list_file: Annotated[
        Path | None,
        typer.Option(
            "--list", help="Text file with a tomogram, folder or pattern on each line.", metavar="FILE"
        ),
    ] = None,
    segmenter: options.SegmenterFile = None,
    classifier: options.ClassifierFile = None,
    verifier: options.VerifierFile = None,
    verify: Annotated[
        bool,
        typer.Option(
            help="Re-score candidates with the verifier. With --classifier this needs --verifier, too."
        ),
    ] = True,
    membrane: options.Membranes = None,
    search_mask: Annotated[
        list[Path] | None,
        typer.Option(
            "--search-mask",
            help="Mask of the region to search in, such as the lamella; repeat it, once per tomogram, or "
            "give a folder of masks named after the tomograms. Membranes are segmented everywhere.",
            metavar="FILE",
        ),
    ] = None,
    voxel_size: options.VoxelSize = None,
    device: options.Device = "auto",
    threshold: Annotated[
        float | None, typer.Option(help="Minimum score of a candidate, 0 to 1.", show_default="0.5")
    ] = None,
    min_precision: Annotated[
        float | None,
        typer.Option(help="Set the threshold for this expected precision, 0 to 1.", show_default=False),
    ] = None,
    min_recall: Annotated[
        float | None,
        typer.Option(help="Set the threshold for this expected recall, 0 to 1.", show_default=False),
    ] = None,
    max_fdr: Annotated[
        float | None,
        typer.Option(
            "--fdr",
            help="Set the threshold for this false-discovery rate, 0 to 1, by decoys in the tomogram itself; "
            "t3ssfast fdr then pools tomograms.",
            show_default=False,
        ),
    ] = None,
    membrane_threshold: Annotated[
        float | None,
        typer.Option(help="Minimum membrane probability of a membrane voxel, 0 to 1.", show_default="0.6"),
    ] = None,
    contrast: options.AutoContrast = None,
    threads: options.Threads = None,
    memory_budget: options.MemoryBudget = None,
    trust_model: options.TrustModel = False,
    window: options.Window = None,
    classifier_output: options.ClassifierOutput = "auto",
    target_class: options.TargetClass = None,
    segmenter_output: options.SegmenterOutput = "auto",
    resume: Annotated[
        bool, typer.Option(help="Resume an interrupted run and skip tomograms that are finished.")
    ] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the finished results of another tomogram in a folder.")
    ] = False,
    save_probability: Annotated[
        bool,
        typer.Option("--save-probability", help="Write the membrane probability, membrane_probability.mrc."),
    ] = False,
    png: Annotated[bool, typer.Option(help="Draw the candidates on slices.")] = True,
    as_json: options.AsJson = False,
) -> None:
    """Find T3SS in tomograms.

    Writes candidates.star, .csv, .mod and .tbl, membrane.mrc, candidates.png, gallery.png and
    provenance.json; with --fdr also decoys.csv.

    An interrupted run resumes at the slab where it stopped. Tomograms that are finished with the same models
    and options are skipped. Several processes can share one list of tomograms. A tomogram that cannot be
    searched is reported and the others are searched; the exit code is then 1. Results of another tomogram in
    the output folder are never replaced without --force.

    \b
    Examples:
      t3ssfast detect TS_01.mrc -o TS_01
      t3ssfast detect TS_01.mrc TS_02.mrc -o results --voxel-size 13.6 --threshold 0.7
      t3ssfast detect tomograms/ --list more.txt -o results
    """
    from t3ssfast.detection import run_to_folder
    from t3ssfast.io import display_path
    from t3ssfast.models import LoadedModel, check_device, load_model

    if not tomograms and list_file is None:
        raise typer.BadParameter("there is no tomogram; give at least one, or --list FILE.")
    paths, is_list = find_tomograms(tomograms or [], list_file)
    masks = mask_of_each(paths, membrane, "membrane")
    regions = mask_of_each(paths, search_mask, "search")
    folders = result_folders(paths, out, is_list=is_list)
    if max_fdr is not None and threshold is not None:
        raise InputError(f"--fdr {max_fdr:g} and --threshold {threshold:g} were given; give one of the two.")
    config = options.detect_config(
        score_threshold=threshold,
        min_precision=min_precision,
        min_recall=min_recall,
        max_fdr=max_fdr,
        membrane_threshold=membrane_threshold,
        contrast=contrast,
        threads=threads,
        memory_budget=memory_budget,
        verify=verify,
    )
    if verifier is not None and not verify:
        raise InputError(f"{display_path(verifier)} was given with --no-verify; leave one of the two out.")
    if save_probability and membrane:
        raise InputError(
            "--save-probability was given with --membrane, with which nothing is segmented; leave one of the "
            "two out."
        )
    # Before the first search: the device, and models, which are loaded once for all tomograms.
    check_device(device)
    readings = options.model_readings(window, classifier_output, target_class, segmenter_output)

    def load(path: Path | None, model_kind: str) -> LoadedModel:
        return load_model(path, model_kind=model_kind, trust_model=trust_model, **readings[model_kind])

    search = partial(
        run_to_folder,
        classifier=load(classifier, model_kind="classifier"),
        segmenter=None if membrane else load(segmenter, model_kind="segmenter"),
        verifier=None if verifier is None else load(verifier, model_kind="verifier"),
        save_probability=save_probability,
        voxel_size_angstrom=voxel_size,
        device=device,
        config=config,
        progress=not as_json,
        resume=resume,
        force=force,
    )
    runs = [
        DetectionRun(search, path, mask, region, folder, voxel_size, png)
        for path, mask, region, folder in zip(paths, masks, regions, folders, strict=True)
    ]
    outcomes = run_all(runs, is_list=is_list, quiet=as_json)
    if as_json:
        typer.echo(json.dumps([outcome.result for outcome in outcomes if outcome.result is not None]))
    elif is_list:
        print_summary(outcomes)
    failures = sum(outcome.status == "failed" for outcome in outcomes)
    if failures:
        typer.echo(
            f"{failures} of {len(paths)} tomograms could not be searched; the others are finished.", err=True
        )
        raise typer.Exit(1)
