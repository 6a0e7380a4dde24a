"""`t3ssfast preselect`: select the windows near a membrane that a classifier should see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from t3ssfast.cli import options
from t3ssfast.cli.matched_particles import match_candidates
from t3ssfast.errors import ConfigError


def preselect(
    tomogram: Annotated[Path, typer.Argument(help="Tomogram.", show_default=False)],
    membrane: Annotated[Path, typer.Argument(help="Membrane mask of the tomogram.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Mask of window centres to write (.mrc).")],
    picks: Annotated[
        Path | None,
        typer.Option(
            help="T3SS picked in this tomogram, to learn the rule from; without them the classifier's own "
            "preselection is used.",
            metavar="FILE",
        ),
    ] = None,
    format: options.ParticleFormat = None,
    angstrom: options.Angstrom = None,
    columns: options.ColumnNames = None,
    classifier: options.ClassifierFile = None,
    voxel_size: options.VoxelSize = None,
    contrast: options.Contrast = "dark",
    keep: Annotated[
        float, typer.Option(min=0.5, max=1.0, help="Fraction of the picks' windows that must pass.")
    ] = 0.995,
    relion_tomograms: options.TomogramsOfParticles = None,
    tomogram_name: options.TomogramNames = None,
    trust_model: options.TrustModel = False,
    window: options.Window = None,
    classifier_output: options.ClassifierOutput = "auto",
    target_class: options.TargetClass = None,
    as_json: options.AsJson = False,
) -> None:
    """Select the windows near a membrane that are worth classifying.

    \b
    Examples:
      t3ssfast preselect TS_01.mrc TS_01_membrane.mrc -o TS_01_windows.mrc
      t3ssfast preselect TS_01.mrc TS_01_membrane.mrc --picks picks.star -o TS_01_windows.mrc
    """
    import numpy as np

    from t3ssfast.detection.preselect import PreselectRule
    from t3ssfast.detection.preselect.preselect import preselect as select_windows
    from t3ssfast.io import display_path, read, read_mask, write
    from t3ssfast.models import load_model

    if contrast not in ("dark", "light"):
        raise ConfigError(f'The contrast is {contrast!r}; give "dark" or "light".')
    volume = read(tomogram, voxel_size_angstrom=voxel_size)
    size = volume.voxel_size_angstrom
    reading = options.ParticleReading(format, angstrom, columns)
    known = []
    if picks is not None:
        known = match_candidates([volume], [tomogram], [picks], relion_tomograms, tomogram_name, reading)
    selected, rule = select_windows(
        volume,
        read_mask(membrane, volume),
        known[0] if known else None,
        classifier=load_model(
            classifier,
            model_kind="classifier",
            trust_model=trust_model,
            window_px=window,
            output=classifier_output,
            target_class=target_class,
        ),
        contrast_sign=1 if contrast == "dark" else -1,
        keep=keep,
    )
    write(out, selected, size)
    if as_json:
        typer.echo(json.dumps(rule.to_dict()))
        return
    if isinstance(rule, PreselectRule):
        for name, low, high in zip(rule.statistics, rule.low, rule.high, strict=True):
            typer.echo(f"{name:>10} from {low:.3g} to {high:.3g}")
    typer.echo(f"wrote {np.count_nonzero(selected):,} window centres to {display_path(out)}")
