"""`t3ssfast simulate`: simulate a tomogram with known ground truth."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from t3ssfast.cli import options


def simulate(
    out: options.OutFolder,
    seed: options.Seed = 0,
    shape: Annotated[str, typer.Option(help="Voxels along z,y,x.")] = "128,512,512",
    voxel_size: Annotated[float, typer.Option(help="Voxel size in Angstrom.")] = 13.6,
    physics: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A field of Physics, such as total_dose_per_square_angstrom=120; may be repeated.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Simulate a tomogram of minicells with known T3SS.

    Writes tomogram.mrc, membrane.mrc, labels.mrc, truth.star, truth.csv, distractors.star (the look-alikes)
    and, last, parameters.json.

    \b
    Example:
      t3ssfast simulate -o simulated --seed 7 --shape 96,256,256
    """
    from t3ssfast.io import atomic_path, results_folder, write
    from t3ssfast.io.particles import export
    from t3ssfast.simulation.simulate import simulate as simulate_tomogram

    simulation = simulate_tomogram(seed, _parse_shape(shape), voxel_size, **_parse_fields(physics or []))
    results_folder(out, "parameters.json")
    write(out / "tomogram.mrc", simulation.tomogram.data, voxel_size)
    write(out / "membrane.mrc", simulation.membrane, voxel_size)
    write(out / "labels.mrc", simulation.labels, voxel_size)
    export(simulation.truth, out / "truth.star", "relion5")
    export(simulation.truth, out / "truth.csv", "csv")
    export(simulation.distractors, out / "distractors.star", "relion5")
    summary = {
        "seed": seed,
        "shape": list(simulation.tomogram.shape),
        "voxel_size_angstrom": voxel_size,
        "t3ss": len(simulation.truth),
        "distractors": len(simulation.distractors),
        "labels": list(simulation.label_names),
        "physics": simulation.parameters.to_dict(),
    }
    with atomic_path(out / "parameters.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        typer.echo(f"wrote a tomogram with {len(simulation.truth)} T3SS to {out}")


def _parse_shape(text: str) -> list[int]:
    try:
        return [int(part) for part in text.replace("x", ",").split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not three whole numbers z,y,x", param_hint="--shape") from None


def _parse_fields(assignments: list[str]) -> dict[str, Any]:
    """Parse NAME=VALUE. Values are JSON, otherwise text."""
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"{assignment!r} is not NAME=VALUE", param_hint="--set")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return values
