"""`t3ssfast preselect`: which windows of a membrane are worth a classifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from t3ssfast.cli.candidate_files import load


def preselect(
    tomogram: Annotated[Path, typer.Argument(help="The tomogram.", show_default=False)],
    membrane: Annotated[Path, typer.Argument(help="Its membrane mask.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Mask of window centres to write (.mrc).")],
    picks: Annotated[
        Path | None,
        typer.Option(
            help="T3SS of this tomogram to learn the rule from; else the classifier's own.", metavar="FILE"
        ),
    ] = None,
    classifier: Annotated[
        Path | None, typer.Option(help="TorchScript LeNet instead of the bundled one.", metavar="FILE")
    ] = None,
    voxel_size: Annotated[
        float | None, typer.Option(help="Voxel size in Angstrom, instead of the header's.")
    ] = None,
    contrast: Annotated[str, typer.Option(help='Protein is "dark" or "light".')] = "dark",
    keep: Annotated[
        float, typer.Option(min=0.5, max=1.0, help="Fraction of the picks' windows that must pass.")
    ] = 0.995,
    trust_model: Annotated[
        bool,
        typer.Option("--trust-model", help="Load the classifier unchecked; it can then run any code."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rule as JSON.")] = False,
) -> None:
    """Say which windows near a membrane are worth the classifier, by their statistics.

    \b
    Example:
      t3ssfast preselect TS_01.mrc TS_01_membrane.mrc --picks picks.star -o TS_01_windows.mrc
    """
    import numpy as np

    from t3ssfast.detection.preselect import PreselectRule
    from t3ssfast.detection.preselect.preselect import preselect as run
    from t3ssfast.errors import ConfigError
    from t3ssfast.io import read, write
    from t3ssfast.models import load_model

    if contrast not in ("dark", "light"):
        raise ConfigError(f'The contrast is {contrast!r}; give "dark" or "light".')
    source = read(tomogram, voxel_size_angstrom=voxel_size)
    mask = read(membrane, voxel_size_angstrom=source.voxel_size_angstrom).data
    known = load(picks, voxel_size=source.voxel_size_angstrom, tomogram=tomogram) if picks else None
    kept, rule = run(
        source,
        mask,
        known[0] if known else None,
        classifier=load_model(classifier, model_kind="classifier", trust_model=trust_model),
        contrast_sign=1 if contrast == "dark" else -1,
        keep=keep,
    )
    write(out, kept, source.voxel_size_angstrom)
    if as_json:
        typer.echo(json.dumps(rule.to_dict()))
        return
    if isinstance(rule, PreselectRule):
        for name, low, high in zip(rule.statistics, rule.low, rule.high, strict=True):
            typer.echo(f"{name:>10} from {low:.3g} to {high:.3g}")
    typer.echo(f"wrote {np.count_nonzero(kept):,} window centres to {out}")
