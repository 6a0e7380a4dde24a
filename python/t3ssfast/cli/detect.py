"""`t3ssfast detect`: find T3SS in tomograms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from t3ssfast.cli import options
from t3ssfast.cli.clusters import run_on_cluster
from t3ssfast.cli.detect_runs import plain_result, run_all, say, summarise_outcomes
from t3ssfast.cli.detections import detections_of
from t3ssfast.runtime.counted import counted


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
    kind: options.Kind = None,
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
        typer.Option(help="Minimum membrane probability of a membrane voxel, 0 to 1.", show_default="0.62"),
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
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Where to run several tomograms at a time: local:N (N isolated processes), slurm, slurm:N "
            "(N jobs at a time), or dask:ADDRESS (the scheduler of dask).",
            show_default="one after another, here",
            metavar="local:N|slurm|dask:tcp://HOST:PORT",
        ),
    ] = None,
    retries: options.Retries = 2,
    shard: Annotated[
        str | None,
        typer.Option(
            help="Search every N-th tomogram from the I-th on, for job arrays of other schedulers.",
            show_default=False,
            metavar="I/N",
        ),
    ] = None,
    sbatch: options.Sbatch = None,
    tilt_series_pixel_size: options.OptimisationSet = None,
    as_json: options.AsJson = False,
) -> None:
    """Find T3SS in tomograms.

    Writes candidates.star, .csv, .mod and .tbl, membrane.mrc, candidates.png, gallery.png and
    provenance.json; with --fdr also decoys.csv.

    An interrupted run resumes at the slab where it stopped. Tomograms that are finished with the same models
    and options are skipped. Several processes can share one list of tomograms. A tomogram that cannot be
    searched is reported and the others are searched; the exit code is then 1. Results of another tomogram in
    the output folder are never replaced without --force.

    Several tomograms also get summary.csv, summary.json and candidates.star with the candidates of all. With
    --cluster each runs in an isolated process: a crash costs one attempt at one tomogram.

    \b
    Examples:
      t3ssfast detect TS_01.mrc -o TS_01
      t3ssfast detect TS_01.mrc TS_02.mrc -o results --voxel-size 13.6 --threshold 0.7
      t3ssfast detect TS_01.mrc -o TS_01 --kind all
      t3ssfast detect tomograms/ --list more.txt -o results
      t3ssfast detect tomograms/ -o results --cluster local:4
    """
    from t3ssfast.models import check_device

    detections, is_list = detections_of(
        tomograms=tomograms,
        list_file=list_file,
        out=out,
        segmenter=segmenter,
        classifier=classifier,
        verifier=verifier,
        verify=verify,
        membrane=membrane,
        search_mask=search_mask,
        voxel_size=voxel_size,
        device=device,
        kinds=None if kind is None else (kind,),
        threshold=threshold,
        min_precision=min_precision,
        min_recall=min_recall,
        max_fdr=max_fdr,
        membrane_threshold=membrane_threshold,
        contrast=contrast,
        threads=threads,
        memory_budget=memory_budget,
        trust_model=trust_model,
        window=window,
        classifier_output=classifier_output,
        target_class=target_class,
        segmenter_output=segmenter_output,
        resume=resume,
        force=force,
        save_probability=save_probability,
        png=png,
        many=cluster is not None or shard is not None,
    )
    if cluster is None and shard is None:
        # Before the first search: the device, and models, which are loaded once for all tomograms.
        check_device(device)
        detections[0].options.models(device, membrane_given=bool(membrane))
        outcomes = run_all(detections, is_list=is_list, quiet=as_json)
        summary = summarise_outcomes(detections, outcomes, tilt_series_pixel_size) if is_list else None
        done = {outcome.name for outcome in outcomes if outcome.status in ("done", "skipped")}
    else:
        summary = run_on_cluster(
            detections,
            cluster or "local:1",
            sbatch=sbatch,
            retries=retries,
            shard=shard,
            quiet=as_json,
            tilt_series_pixel_size=tilt_series_pixel_size,
        )
        done = {row.tomogram for row in summary.rows if row.status in ("done", "skipped")}
    if as_json:
        results = [detection for detection in detections if detection.name in done]
        typer.echo(json.dumps([plain_result(detection) for detection in results]))
    elif summary is not None:
        for line in summary.lines():
            say(line)
    failures = 0 if summary is None else len(summary.failed)
    if summary is not None and failures:
        left = len(summary.unfinished)
        others = "the others are finished" if not left else f"{left} are not finished yet"
        failed = f"{failures} of {counted(len(detections), 'tomogram')}"
        typer.echo(f"{failed} could not be searched; {others}.", err=True)
        raise typer.Exit(1)
