"""`t3ssfast preselect`: select the windows near a membrane that a classifier should see."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t3ssfast.cli import options
from t3ssfast.cli.matched_particles import match_candidates
from t3ssfast.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from t3ssfast.candidates import Candidates
    from t3ssfast.models import LoadedModel
    from t3ssfast.tomogram import Tomogram

__all__ = ["preselect"]


def preselect(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Tomogram and its membrane mask; with --learn, several such pairs.",
            metavar="TOMOGRAM MEMBRANE",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Mask of window centres to write (.mrc); with --learn, a classifier file."
        ),
    ],
    picks: Annotated[
        list[Path] | None,
        typer.Option(
            help="T3SS picked in the tomogram, to learn the rule from; without them the classifier's own "
            "preselection is used. With --learn, a file for each tomogram or one for all.",
            metavar="FILE",
        ),
    ] = None,
    learn: Annotated[
        bool,
        typer.Option(
            "--learn",
            help="Learn a model of block statistics from the picks of several tomograms, and write a copy of "
            "the classifier that uses it.",
        ),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Histograms of the statistics of windows on picks and of the others to write (.png).",
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
      t3ssfast preselect TS_01.mrc TS_01_membrane.mrc --picks picks.star --plot statistics.png -o windows.mrc
      t3ssfast preselect a.mrc a_membrane.mrc b.mrc b_membrane.mrc --picks picks.star --learn -o classifier.pt
    """
    from t3ssfast.io import read
    from t3ssfast.models import load_model

    if contrast not in ("dark", "light"):
        raise ConfigError(f'The contrast is {contrast!r}; give "dark" or "light".')
    if len(files) % 2 or (len(files) > 2 and not learn):
        raise ConfigError(
            f"{len(files)} files were given; give a tomogram and its membrane mask"
            + (", and so on for each tomogram." if learn else ", or several pairs with --learn.")
        )
    if picks is None and (learn or plot is not None):
        raise ConfigError(f"{'--learn' if learn else '--plot'} needs T3SS to compare with; give --picks.")
    paths, masks = files[::2], files[1::2]
    volumes = [read(path, voxel_size_angstrom=voxel_size) for path in paths]
    known = None
    if picks is not None:
        reading = options.ParticleReading(format, angstrom, columns)
        known = match_candidates(volumes, paths, picks, relion_tomograms, tomogram_name, reading)
    model = load_model(
        classifier,
        model_kind="classifier",
        trust_model=trust_model,
        window_px=window,
        output=classifier_output,
        target_class=target_class,
    )
    wanted = _Wanted(model, 1 if contrast == "dark" else -1, keep, out, plot, as_json)
    if learn:
        _learn(volumes, masks, known or [], wanted)
    else:
        _select(volumes[0], masks[0], known[0] if known else None, wanted)


@dataclass(frozen=True)
class _Wanted:
    """What both forms of the command share: the classifier, options, and files to write."""

    model: LoadedModel
    contrast_sign: int
    keep: float
    out: Path
    plot: Path | None
    as_json: bool


def _select(volume: Tomogram, mask: Path, picks: Candidates | None, wanted: _Wanted) -> None:
    """Write the mask of the windows of one tomogram, and print the bounds of a rule."""
    import numpy as np

    from t3ssfast.detection.preselect import PreselectRule
    from t3ssfast.detection.preselect.preselect import preselect as select_windows
    from t3ssfast.io import display_path, read_mask, write

    membrane = read_mask(mask, volume)
    selected, rule = select_windows(
        volume,
        membrane,
        picks,
        classifier=wanted.model,
        contrast_sign=wanted.contrast_sign,
        keep=wanted.keep,
    )
    write(wanted.out, selected, volume.voxel_size_angstrom)
    if picks is not None:
        _draw(volume, membrane, picks, wanted)
    if wanted.as_json:
        typer.echo(json.dumps(rule.to_dict()))
        return
    if isinstance(rule, PreselectRule):
        for name, low, high in zip(rule.statistics, rule.low, rule.high, strict=True):
            typer.echo(f"{name:>10} from {low:.3g} to {high:.3g}")
    typer.echo(f"wrote {np.count_nonzero(selected):,} window centres to {display_path(wanted.out)}")


def _learn(volumes: list[Tomogram], masks: list[Path], picks: list[Candidates], wanted: _Wanted) -> None:
    """Write a copy of the classifier with a preselection learned from several tomograms."""
    from t3ssfast.detection.preselect import learn_preselection
    from t3ssfast.io import display_path, read_mask
    from t3ssfast.models import save_model

    membranes = [read_mask(mask, volume) for mask, volume in zip(masks, volumes, strict=True)]
    learned = learn_preselection(
        volumes,
        membranes,
        picks,
        classifier=wanted.model,
        contrast_sign=wanted.contrast_sign,
        keep=wanted.keep,
    )
    model, metrics = wanted.model, learned.metrics
    save_model(model.module, wanted.out, replace(model.metadata, preselect=learned.to_dict()))
    _draw(volumes[0], membranes[0], picks[0], wanted)
    if wanted.as_json:
        typer.echo(json.dumps(learned.to_dict()))
        return
    typer.echo(
        f"keeps {metrics['positives_kept']:.1%} of the windows on T3SS and {metrics['negatives_kept']:.1%} "
        f"of the others, by cross-validation over {metrics['tomograms']} tomograms"
    )
    typer.echo(f"wrote the classifier with this preselection to {display_path(wanted.out)}")


def _draw(volume: Tomogram, membrane: NDArray[Any], picks: Candidates, wanted: _Wanted) -> None:
    """Draw the statistics of one tomogram's windows, if asked for; an error is a warning."""
    from t3ssfast.detection.preselect.preselect import sample_windows
    from t3ssfast.io import display_path
    from t3ssfast.plotting import draw_statistics
    from t3ssfast.runtime.figures import pictures_of

    if wanted.plot is None:
        return
    with pictures_of(display_path(wanted.out)):
        sample = sample_windows(
            volume, membrane, picks, classifier=wanted.model, contrast_sign=wanted.contrast_sign
        )
        draw_statistics(wanted.plot, sample, sample.learn(wanted.keep, margin=0.25))
