"""`t3ssfast average`: candidates aligned and averaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t3ssfast.cli.candidate_files import Tomograms as RelionTomograms
from t3ssfast.cli.candidate_files import VoxelSize
from t3ssfast.cli.matched_particles import Box, BoxNm, CandidateFiles, Contrast, Tilt, Tomograms, matched

if TYPE_CHECKING:
    from t3ssfast.averaging.average import Average


def average(
    tomograms: Tomograms,
    candidates: CandidateFiles,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder to write to; a run that was stopped goes on from it.")
    ],
    box: Box = None,
    box_nm: BoxNm = None,
    symmetry: Annotated[str, typer.Option(help="C1 to C60, about the particle's axis.")] = "C1",
    iterations: Annotated[int, typer.Option(help="Rounds of alignment and averaging.")] = 5,
    reference: Annotated[
        Path | None,
        typer.Option(help="Map to begin with (protein bright), instead of the average.", metavar="FILE"),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(help="Mask (0 to 1) instead of a cylinder.", metavar="FILE"),
    ] = None,
    mask_radius: Annotated[float | None, typer.Option(help="Radius of the cylinder, nm.")] = None,
    cone: Annotated[
        float | None, typer.Option(help="How far axes may leave the membrane's normal, degrees.")
    ] = None,
    max_shift: Annotated[float | None, typer.Option(help="How far particles may move, nm.")] = None,
    weed: Annotated[bool, typer.Option(help="Leave out particles whose score sets them apart.")] = True,
    b_factor: Annotated[
        float | None, typer.Option(help="Sharpen the map by this, square Angstrom.", show_default="none")
    ] = None,
    contrast: Contrast = "dark",
    tilt_range: Tilt = (-60.0, 60.0),
    voxel_size: VoxelSize = None,
    relion_tomograms: RelionTomograms = None,
    min_score: Annotated[float, typer.Option(help="Leave out candidates with a lower score.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the split into halves.")] = 0,
    device: Annotated[str, typer.Option(help='"auto", "cpu", "cuda", "cuda:1".')] = "auto",
    threads: Annotated[int | None, typer.Option(help="Processor threads.", show_default="as set")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print counts and resolutions as JSON.")] = False,
) -> None:
    """Align and average candidates in two halves, and say how far the halves agree.

    Writes average.mrc, half_map_1.mrc, half_map_2.mrc, mask.mrc, fsc.csv, candidates.star (what is in the
    maps), particles.csv (all, with scores), average.png and average.json.

    \b
    Example:
      t3ssfast average TS_*.mrc --candidates picks.star --box 64 --symmetry C6 -o average
    """
    from t3ssfast.averaging.average import AverageConfig
    from t3ssfast.averaging.average import average as run
    from t3ssfast.io import display_path, read
    from t3ssfast.plotting import draw_average

    given: dict[str, Any] = {
        "mask_radius_nm": mask_radius,
        "cone_degrees": cone,
        "max_shift_nm": max_shift,
        "b_factor": b_factor,
        "threads": threads,
    }
    config = AverageConfig(
        iterations=iterations,
        weed=weed,
        contrast=contrast,
        tilt_range_degrees=tilt_range,
        seed=seed,
        **{name: value for name, value in given.items() if value is not None},
    )
    volumes, found = matched(
        tomograms,
        candidates,
        voxel_size=voxel_size,
        relion_tomograms=relion_tomograms,
        min_score=min_score,
    )
    size = volumes[0].voxel_size_angstrom
    result = run(
        volumes,
        found,
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
    files = result.save(out)
    draw_average(out / "average.png", result)
    if as_json:
        typer.echo(json.dumps(result.summary() | {"files": [str(f) for f in [*files, out / "average.png"]]}))
    else:
        _print(result)
        typer.echo(f"wrote {display_path(out)}")


def _print(result: Average) -> None:
    summary = result.summary()
    typer.echo(f"{summary['kept']} of {summary['particles']} particles kept")
    for name, threshold in (("resolution_angstrom", "0.143"), ("resolution_half_angstrom", "0.5")):
        value = summary[name]
        claim = "no claim: the halves agree no further than they share" if value is None else f"{value} A"
        typer.echo(f"resolution at {threshold}: {claim}")
