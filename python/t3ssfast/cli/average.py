"""`t3ssfast average`: align and average candidates."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from t3ssfast.cli import options
from t3ssfast.cli.matched_particles import (
    Box,
    BoxNm,
    CandidateFiles,
    TiltRange,
    candidates_of_each,
    contrast_of_each,
    read_matched,
)
from t3ssfast.cli.tomogram_lists import find_tomograms
from t3ssfast.runtime.counted import counted


def average(
    tomograms: options.Tomograms,
    candidates: CandidateFiles,
    out: options.OutFolder,
    box: Box = None,
    box_nm: BoxNm = None,
    symmetry: Annotated[str, typer.Option(help="Symmetry about the particle's axis, C1 to C60.")] = "C1",
    iterations: Annotated[int, typer.Option(help="Number of alignment and averaging iterations.")] = 5,
    reference: Annotated[
        Path | None,
        typer.Option(help="Initial reference (protein bright); default: the average.", metavar="FILE"),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Mask (0 to 1); default: a soft cylinder.", metavar="FILE")
    ] = None,
    mask_radius: Annotated[float | None, typer.Option(help="Radius of the cylinder, nm.")] = None,
    cone: Annotated[float | None, typer.Option(help="Maximum tilt from the normal, degrees.")] = None,
    max_shift: Annotated[float | None, typer.Option(help="Maximum shift of a particle, nm.")] = None,
    reject_outliers: Annotated[
        bool,
        typer.Option(
            "--reject-outliers/--no-reject-outliers",
            "--weed/--no-weed",
            help="Exclude particles with outlying scores.",
        ),
    ] = True,
    reject_other_kinds: Annotated[
        bool, typer.Option(help="Exclude particles that the bundled verifier takes for another kind.")
    ] = True,
    kind: options.Kind = None,
    b_factor: Annotated[
        float | None,
        typer.Option(help="B-factor for sharpening the map, square Angstrom.", show_default="none"),
    ] = None,
    contrast: options.AutoContrast = None,
    tilt_range: TiltRange = (-60.0, 60.0),
    format: options.ParticleFormat = None,
    angstrom: options.Angstrom = None,
    columns: options.ColumnNames = None,
    voxel_size: options.VoxelSize = None,
    relion_tomograms: options.TomogramsOfParticles = None,
    min_score: options.MinScore = None,
    tomogram_name: options.TomogramNames = None,
    seed: Annotated[int, typer.Option(help="Random seed of the split into half sets.")] = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    as_json: options.AsJson = False,
) -> None:
    """Align and average candidates in two independent half sets.

    The correlation of the half sets gives the resolution.

    Writes average.mrc, half_map_1.mrc, half_map_2.mrc, mask.mrc, fsc.csv, candidates.star (the particles in
    the maps), particles.csv (all particles, with scores), average.png and average.json. An interrupted run
    resumes from the output folder.

    \b
    Example:
      t3ssfast average TS_*.mrc --candidates picks.star --box 64 --symmetry C6 -o average
    """
    from t3ssfast.averaging import average as averaging
    from t3ssfast.io import display_path, read
    from t3ssfast.plotting import draw_average
    from t3ssfast.runtime.figures import pictures_of

    chosen = options.given_options(
        iterations=iterations,
        kind=kind,
        reject_outliers=reject_outliers,
        reject_other_kinds=reject_other_kinds,
        tilt_range_degrees=tilt_range,
        seed=seed,
        mask_radius_nm=mask_radius,
        cone_degrees=cone,
        max_shift_nm=max_shift,
        b_factor=b_factor,
        threads=threads,
    )
    config = averaging.AverageConfig(**chosen)
    reading = options.ParticleReading(format, angstrom, columns)
    tomograms, _ = find_tomograms(tomograms)
    candidates = candidates_of_each(tomograms, candidates)
    volumes, matched = read_matched(
        tomograms, candidates, voxel_size, relion_tomograms, min_score, tomogram_name, reading
    )
    contrasts = contrast_of_each(volumes, candidates, contrast or "auto")
    # One value where all agree, as a run that is given the contrast has.
    same = len(set(contrasts)) == 1
    config = replace(config, contrast=contrasts[0] if same else tuple(contrasts))
    size = volumes[0].voxel_size_angstrom
    result = averaging.average(
        volumes,
        matched,
        box,
        box_nm=box_nm,
        symmetry=symmetry,
        mask=None if mask is None else read(mask, voxel_size_angstrom=size).data,
        reference=None if reference is None else read(reference, voxel_size_angstrom=size).data,
        config=config,
        device=device,
        folder=out,
        progress=not as_json,
    )
    files = [*result.save(out), out / "average.png"]
    with pictures_of(display_path(out)):
        draw_average(files[-1], result)
    summary = result.summary()
    if as_json:
        typer.echo(json.dumps(summary | {"files": [str(file) for file in files]}))
        return
    typer.echo(f"{summary['kept']} of {counted(summary['particles'], 'particle')} kept")
    for name, threshold in (("resolution_angstrom", "0.143"), ("resolution_half_angstrom", "0.5")):
        value = summary[name]
        text = "none can be claimed beyond what the half sets share" if value is None else f"{value} A"
        typer.echo(f"resolution at FSC = {threshold}: {text}")
    typer.echo(f"wrote {display_path(out)}")
