"""`t3ssfast demo`: the whole job on a small simulated tomogram whose truth is known."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from t3ssfast.evaluation import Evaluation

# Small enough to be simulated, searched and drawn in well under a minute on two cores.
SHAPE = (72, 288, 288)
VOXEL_SIZE_ANGSTROM = 13.6


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")] = Path("t3ssfast-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Of the simulation.")] = 2026,
    device: Annotated[str, typer.Option(help='"auto", "cpu", "cuda", "cuda:1".')] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Simulate a small tomogram, find the T3SS in it, and count hits and misses; under a minute.

    Writes tomogram.mrc, truth.star, what `t3ssfast detect` writes, and pictures with the truth.

    \b
    Example:
      t3ssfast demo -o t3ssfast-demo
    """
    from t3ssfast.detection import detect
    from t3ssfast.evaluation.evaluate import evaluate
    from t3ssfast.io import read, results_folder, write
    from t3ssfast.io.particles import export
    from t3ssfast.plotting import draw_candidates, draw_gallery
    from t3ssfast.simulation.simulate import simulate

    seconds: dict[str, float] = {}
    start = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal start
        now = time.perf_counter()
        seconds[name], start = now - start, now

    results_folder(out)
    if not as_json:
        typer.echo(f"simulating a tomogram of {' x '.join(map(str, SHAPE))} voxels ...")
    simulation = simulate(seed, SHAPE, VOXEL_SIZE_ANGSTROM)
    write(out / "tomogram.mrc", simulation.tomogram.data, VOXEL_SIZE_ANGSTROM)
    export(simulation.truth, out / "truth.star", "relion5")
    lap("simulate")
    detection = detect(out / "tomogram.mrc", device=device, progress=not as_json)
    detection.save(out)
    lap("detect")
    found = evaluate(detection.candidates, simulation.truth, distractors=simulation.distractors)
    tomogram = read(out / "tomogram.mrc")
    draw_candidates(
        out / "candidates.png",
        tomogram,
        detection.candidates,
        membrane=detection.membrane,
        truth=simulation.truth,
    )
    draw_gallery(out / "gallery.png", tomogram, detection.candidates, truth=simulation.truth)
    lap("evaluate and draw")
    files = [
        "tomogram.mrc",
        "truth.star",
        "candidates.star",
        "candidates.csv",
        "candidates.mod",
        "candidates.tbl",
        "membrane.mrc",
        "candidates.png",
        "gallery.png",
        "provenance.json",
    ]
    if as_json:
        report = {
            "folder": str(out),
            "files": files,
            "seconds": seconds,
            "detection": detection.provenance,
            "evaluation": found.to_dict(),
        }
        typer.echo(json.dumps(report, allow_nan=False))
        return
    _print(found, seconds, detection.provenance["seconds"])
    typer.echo(f"wrote to {out.resolve()}: {', '.join(files)}")
    typer.echo(f"look at {out / 'candidates.png'}")


def _print(found: Evaluation, seconds: dict[str, float], stages: dict[str, float]) -> None:
    from rich.console import Console
    from rich.table import Table

    from t3ssfast.evaluation.report import pooled_table

    console = Console()
    console.print(pooled_table(found))
    table = Table(title="Time")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    rows: list[tuple[str, Any]] = []
    for name, value in seconds.items():
        rows.append((name, value))
        if name == "detect":
            rows += [(f"  {stage}", spent) for stage, spent in stages.items() if spent >= 0.05]
    for name, value in [*rows, ("together", sum(seconds.values()))]:
        table.add_row(name, f"{value:.1f}")
    console.print(table)
