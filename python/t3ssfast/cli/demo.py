"""`t3ssfast demo`: simulate a small tomogram, search it, and compare the result with the truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from t3ssfast.cli import options

if TYPE_CHECKING:
    from t3ssfast.evaluation import Evaluation

# Simulated, searched and drawn in well under a minute on two cores.
SHAPE = (72, 288, 288)
VOXEL_SIZE_ANGSTROM = 13.6
FILES = (
    *("tomogram.mrc", "truth.star", "candidates.star", "candidates.csv", "candidates.mod", "candidates.tbl"),
    *("membrane.mrc", "candidates.png", "gallery.png", "provenance.json"),
)


def demo(
    out: options.OutFolder = Path("t3ssfast-demo"),
    seed: options.Seed = 2026,
    device: options.Device = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Simulate a small tomogram, and find the T3SS in it.

    Hits, misses and false candidates are counted.

    Takes less than a minute. Writes tomogram.mrc, truth.star, the files of `t3ssfast detect`, and pictures
    that compare the candidates with the truth.

    \b
    Example:
      t3ssfast demo -o t3ssfast-demo
    """
    from t3ssfast.detection import detect
    from t3ssfast.evaluation.evaluate import evaluate
    from t3ssfast.io import read, results_folder, write
    from t3ssfast.io.particles import export
    from t3ssfast.plotting import draw_candidates, draw_gallery
    from t3ssfast.runtime.progress import Stages
    from t3ssfast.simulation.simulate import simulate

    results_folder(out)
    if not as_json:
        typer.echo(f"simulating a tomogram of {' x '.join(map(str, SHAPE))} voxels ...")
    path, stages = out / "tomogram.mrc", Stages(visible=False)
    with stages("simulate"):
        simulation = simulate(seed, SHAPE, VOXEL_SIZE_ANGSTROM)
        truth = simulation.truth
        write(path, simulation.tomogram.data, VOXEL_SIZE_ANGSTROM)
        export(truth, out / "truth.star", "relion5")
    with stages("detect"):
        detection = detect(path, device=device, progress=not as_json)
        detection.save(out)
    with stages("evaluate and draw"):
        found, tomogram = detection.candidates, read(path)
        evaluation = evaluate(found, truth, distractors=simulation.distractors)
        draw_candidates(out / "candidates.png", tomogram, found, membrane=detection.membrane, truth=truth)
        draw_gallery(out / "gallery.png", tomogram, found, truth=truth)
    if as_json:
        report = {
            "folder": str(out),
            "files": list(FILES),
            "seconds": stages.seconds,
            "detection": detection.provenance,
            "evaluation": evaluation.to_dict(),
        }
        typer.echo(json.dumps(report, allow_nan=False))
        return
    _print(evaluation, stages.seconds, detection.provenance["seconds"])
    typer.echo(f"wrote to {out.resolve()}: {', '.join(FILES)}")
    typer.echo(f"see {out / 'candidates.png'}")


def _print(evaluation: Evaluation, seconds: dict[str, float], stages: dict[str, float]) -> None:
    """Print the evaluation, and the seconds of each step and of each stage of the detection."""
    from rich.console import Console
    from rich.table import Table

    from t3ssfast.evaluation.report import pooled_table

    table = Table(title="Time")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    for step, spent in seconds.items():
        table.add_row(step, f"{spent:.1f}")
        for stage, part in stages.items():
            if step == "detect" and part >= 0.05:
                table.add_row(f"  {stage}", f"{part:.1f}")
    table.add_row("total", f"{sum(seconds.values()):.1f}")
    console = Console()
    console.print(pooled_table(evaluation))
    console.print(table)
