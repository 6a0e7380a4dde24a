"""`t3ssfast train`: train the models on your own tomograms, and reproduce the bundled ones."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t3ssfast.cli.matched_particles import match_candidates
from t3ssfast.cli.options import (
    Angstrom,
    AsJson,
    AutoContrast,
    ClassifierFile,
    ColumnNames,
    Device,
    OutFolder,
    ParticleFormat,
    ParticleReading,
    Seed,
    SegmenterFile,
    TomogramNames,
    Tomograms,
    TomogramsOfParticles,
    TrustModel,
    VerifierFile,
    VoxelSize,
    given_options,
)
from t3ssfast.cli.tomogram_lists import find_tomograms

if TYPE_CHECKING:
    import numpy.typing as npt

    from t3ssfast.candidates import Candidates
    from t3ssfast.models import LoadedModel
    from t3ssfast.tomogram import Tomogram

app = typer.Typer(help="Train the models on your own tomograms.", no_args_is_help=True)

# Metrics whose names in model files do not say enough.
METRIC_NAMES = {
    "dice": "Dice coefficient",
    "median_offset_px": "median error of the centre, voxels of the model",
    "median_lean_degrees": "median error of the axis, degrees",
}
Picks = Annotated[
    list[Path],
    typer.Option(
        "--picks",
        "-p",
        help="All T3SS of each tomogram, in the same order (.star, .tbl ...), or one file for all.",
        metavar="FILE",
    ),
]
MASKS_HELP = "Membrane mask of each tomogram, in the same order."
Masks = Annotated[list[Path], typer.Option("--membranes", "-m", help=MASKS_HELP)]
OptionalMasks = Annotated[list[Path] | None, typer.Option("--membranes", "-m", help=MASKS_HELP)]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        help="Model file to write, .safetensors or .pt (TorchScript); the other format is written beside it.",
    ),
]
Start = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help='Model to start from, or "bundled"; it determines voxel size and window.'
    ),
]
Steps = Annotated[int | None, typer.Option(min=1, help="Optimiser steps.")]
LearningRate = Annotated[float | None, typer.Option(help="Peak learning rate; use a lower one with --start.")]
Kinds = Annotated[
    str | None,
    typer.Option(
        help="Kinds of particles to tell apart, separated by commas; picks of other kinds are negatives.",
        metavar="KINDS",
        show_default="t3ss, or those of --start",
    ),
]
Resume = Annotated[bool, typer.Option(help="Resume from the checkpoint of an interrupted run.")]
# Prints the progress to standard error.
log = partial(typer.echo, err=True)


@app.command()
def segmenter(
    tomograms: Tomograms,
    membranes: Masks,
    out: Out = Path("segmenter.safetensors"),
    voxel_size: VoxelSize = None,
    contrast: AutoContrast = None,
    seed: Seed = 0,
    steps: Steps = None,
    device: Device = "cpu",
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Train the U-Net on tomograms and membrane masks.

    \b
    Example:
      t3ssfast train segmenter a.mrc b.mrc -m a_membrane.mrc -m b_membrane.mrc -o segmenter.safetensors
    """
    from t3ssfast.training import train_segmenter

    volumes, masks, _ = _read(tomograms, voxel_size, membranes, None)
    options = given_options(seed=seed, steps=steps)
    contrasts = _contrasts(volumes, contrast, masks)
    common: dict[str, Any] = {"contrast": contrasts, "device": device, "resume": resume}
    train_segmenter(volumes, masks or [], out, **common, **options)
    _print_metrics(out, "segmenter", as_json)


@app.command()
def classifier(
    tomograms: Tomograms,
    picks: Picks,
    format: ParticleFormat = None,
    angstrom: Angstrom = None,
    columns: ColumnNames = None,
    membranes: OptionalMasks = None,
    out: Out = Path("classifier.safetensors"),
    voxel_size: VoxelSize = None,
    contrast: AutoContrast = None,
    relion_tomograms: TomogramsOfParticles = None,
    tomogram_name: TomogramNames = None,
    trust_model: TrustModel = False,
    seed: Seed = 0,
    steps: Steps = None,
    rounds: Annotated[int | None, typer.Option(min=0, help="Rounds of hard-negative mining.")] = None,
    start: Start = None,
    learning_rate: LearningRate = None,
    device: Device = "cpu",
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Train the LeNet on tomograms and picked T3SS.

    Picks of another kind are negatives.

    \b
    Examples:
      t3ssfast train classifier a.mrc b.mrc -p a.star -p b.star -o classifier.safetensors
      t3ssfast train classifier a.mrc -p a.star --start bundled --steps 60 --learning-rate 1e-4
      torchrun --nproc-per-node 2 --no-python t3ssfast train classifier a.mrc -p a.star
    """
    from t3ssfast.training import train_classifier

    reading = ParticleReading(format, angstrom, columns)
    volumes, masks, known = _read(
        tomograms, voxel_size, membranes, picks, tomogram_name, reading, relion_tomograms
    )
    begun = _load_start(start, "classifier", trust_model)
    options = given_options(seed=seed, steps=steps, rounds=rounds, learning_rate=learning_rate)
    contrasts = _contrasts(volumes, contrast, masks)
    common: dict[str, Any] = {"contrast": contrasts, "device": device, "resume": resume}
    train_classifier(volumes, known, masks, out, start=begun, **common, **options)
    _print_metrics(out, "classifier", as_json)


@app.command()
def verifier(
    tomograms: Tomograms,
    picks: Picks,
    classifier: ClassifierFile = None,
    segmenter: SegmenterFile = None,
    format: ParticleFormat = None,
    angstrom: Angstrom = None,
    columns: ColumnNames = None,
    membranes: OptionalMasks = None,
    out: Out = Path("verifier.safetensors"),
    voxel_size: VoxelSize = None,
    contrast: AutoContrast = None,
    relion_tomograms: TomogramsOfParticles = None,
    tomogram_name: TomogramNames = None,
    trust_model: TrustModel = False,
    seed: Seed = 0,
    steps: Steps = None,
    kinds: Kinds = None,
    kinds_only: Annotated[
        bool,
        typer.Option(
            "--kinds-only",
            help="Train only what tells further kinds from the first; the rest stays as in --start.",
        ),
    ] = False,
    start: Start = None,
    learning_rate: LearningRate = None,
    device: Device = "cpu",
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Train the verifier on the candidates of the classifier.

    \b
    Examples:
      t3ssfast train verifier a.mrc b.mrc -p a.star -p b.star --classifier classifier.safetensors
      t3ssfast train verifier a.mrc -p a.star --start bundled --steps 60 --learning-rate 1e-4
      t3ssfast train verifier a.mrc b.mrc -p a.star -p b.star --kinds t3ss,flagellar_motor
    """
    from t3ssfast.training import train_verifier
    from t3ssfast.training.calibrate import find_candidates

    reading = ParticleReading(format, angstrom, columns)
    volumes, masks, known = _read(
        tomograms, voxel_size, membranes, picks, tomogram_name, reading, relion_tomograms
    )
    begun = _load_start(start, "verifier", trust_model)
    models = _load_models(trust_model, segmenter=segmenter, classifier=classifier)
    contrasts = _contrasts(volumes, contrast, masks, models["segmenter"])
    search: dict[str, Any] = {"segmenter": models["segmenter"], "membranes": masks, "device": device}
    found = find_candidates(models["classifier"], volumes, contrasts=contrasts, log=log, **search)
    options = given_options(seed=seed, steps=steps, learning_rate=learning_rate)
    if kinds is not None:
        options["kinds"] = tuple(name.strip() for name in kinds.split(",") if name.strip())
    if kinds_only:
        options["kinds_only"] = True
    common: dict[str, Any] = {"contrast": contrasts, "device": device, "resume": resume}
    train_verifier(volumes, known, found, out, start=begun, **common, **options)
    _print_metrics(out, "verifier", as_json)


@app.command()
def calibrate(
    classifier: Annotated[
        Path, typer.Argument(help="Model file of a LeNet; without --verifier, its metadata are rewritten.")
    ],
    tomograms: Tomograms,
    picks: Picks,
    verifier: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Verifier to calibrate; its metadata are rewritten.")
    ] = None,
    segmenter: SegmenterFile = None,
    format: ParticleFormat = None,
    angstrom: Angstrom = None,
    columns: ColumnNames = None,
    membranes: OptionalMasks = None,
    voxel_size: VoxelSize = None,
    contrast: AutoContrast = None,
    relion_tomograms: TomogramsOfParticles = None,
    tomogram_name: TomogramNames = None,
    trust_model: TrustModel = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Calibrate scores to probabilities.

    The tomograms must be others than the models were trained on.

    \b
    Example:
      t3ssfast train calibrate classifier.safetensors c.mrc d.mrc -p c.star -p d.star
    """
    from t3ssfast.training.calibrate import calibrate_models

    reading = ParticleReading(format, angstrom, columns)
    volumes, masks, known = _read(
        tomograms, voxel_size, membranes, picks, tomogram_name, reading, relion_tomograms
    )
    models = _load_models(trust_model, segmenter=segmenter)
    search: dict[str, Any] = {"segmenter": models["segmenter"], "membranes": masks, "device": device}
    search["contrasts"] = _contrasts(volumes, contrast, masks, models["segmenter"])
    if trust_model:
        search["trust_model"] = True
    learned = calibrate_models(classifier, volumes, known, verifier=verifier, log=log, **search)
    written = verifier or classifier
    if as_json:
        typer.echo(json.dumps({"model": str(written), "calibration": learned.to_dict()}))
        return
    error = learned.metrics
    typer.echo(
        f"wrote {written}; calibration error {error['calibration_error_before']:.3f} before, "
        f"{error['calibration_error_after']:.3f} after, by cross-validation"
    )


@app.command()
def tune(
    tomograms: Tomograms,
    picks: Picks,
    start: VerifierFile = None,
    classifier: ClassifierFile = None,
    segmenter: SegmenterFile = None,
    format: ParticleFormat = None,
    angstrom: Angstrom = None,
    columns: ColumnNames = None,
    membranes: OptionalMasks = None,
    out: Out = Path("tuned.safetensors"),
    voxel_size: VoxelSize = None,
    contrast: AutoContrast = None,
    relion_tomograms: TomogramsOfParticles = None,
    tomogram_name: TomogramNames = None,
    trust_model: TrustModel = False,
    folds: Annotated[int, typer.Option(min=2, help="Folds of the cross-validation for the calibration.")] = 4,
    seed: Seed = 0,
    steps: Steps = None,
    learning_rate: LearningRate = None,
    device: Device = "cpu",
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune the verifier on few picks or on verdicts.

    It is also calibrated on your tomograms.

    Of a curation file (`t3ssfast report`, napari), accepted candidates are T3SS and rejected ones are not;
    what is unsure or undecided is not learned from. Other files hold all T3SS of their tomograms.

    \b
    Examples:
      t3ssfast train tune a.mrc -p a.star -o tuned.safetensors
      t3ssfast train tune a.mrc b.mrc -p results_curation.json -o tuned.safetensors
      t3ssfast detect b.mrc -o found/ --verifier tuned.safetensors
    """
    from t3ssfast.training.fine_tune import fine_tune_verifier

    reading = ParticleReading(format, angstrom, columns)
    volumes, masks, known = _read(
        tomograms, voxel_size, membranes, picks, tomogram_name, reading, relion_tomograms, verdicts=True
    )
    models = _load_models(trust_model, start=start, classifier=classifier, segmenter=segmenter)
    options = given_options(seed=seed, folds=folds, steps=steps, learning_rate=learning_rate)
    options["contrast"] = _contrasts(volumes, contrast, masks, models["segmenter"])
    common: dict[str, Any] = {"membranes": masks, "device": device, "resume": resume, "log": log}
    fine_tune_verifier(volumes, known, out, **common, **models, **options)
    _print_metrics(out, "verifier", as_json)


@app.command("few-labels")
def few_labels(
    out: OutFolder,
    counts: Annotated[
        list[int] | None,
        typer.Option("--picks", min=3, help="Number of picks; repeatable.", show_default="5 10 20 50"),
    ] = None,
    classifier: ClassifierFile = None,
    verifier: VerifierFile = None,
    seed: Seed = 0,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Measure fine-tuning on few picks.

    The tomograms are simulated, in a way that the models were not trained on.

    \b
    Example:
      t3ssfast train few-labels -o few --picks 10 --picks 50
    """
    from t3ssfast.training.few_shot import few_shot_curve

    options = given_options(counts=counts or None, classifier=classifier, verifier=verifier)
    rows = few_shot_curve(out, seed=seed, device=device, log=log, **options)
    typer.echo(json.dumps(rows, indent=None if as_json else 1))


@app.command()
def bundled(
    out: OutFolder,
    seed: Seed = 0,
    size: Annotated[str, typer.Option(help='"full", or "small" for a test run.')] = "full",
    tomograms: Annotated[
        int | None, typer.Option(min=2, help="Number of training tomograms, instead of the size's.")
    ] = None,
    calibrate_only: Annotated[
        bool,
        typer.Option(
            "--calibrate-only", help="Take the networks in the package; calibrate and measure them."
        ),
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Simulations at a time.")] = 1,
    device: Device = "cpu",
    resume: Annotated[
        bool, typer.Option(help="Reuse the models and searches that an earlier run finished.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Reproduce the bundled models.

    It simulates tomograms, trains, calibrates and measures.

    \b
    Example:
      t3ssfast train bundled -o weights --jobs 2
      t3ssfast train bundled -o weights --calibrate-only
    """
    from t3ssfast.training.bundled import train_bundled

    options = given_options(
        tomograms=tomograms, seed=seed, size=size, jobs=jobs, resume=resume, calibrate_only=calibrate_only
    )
    metrics = train_bundled(out, device=device, log=log, **options)
    typer.echo(json.dumps(metrics, indent=None if as_json else 1))


def _read(
    tomograms: list[Path],
    voxel_size: float | None,
    membranes: list[Path] | None,
    picks: list[Path] | None,
    names: list[str] | None = None,
    reading: ParticleReading | None = None,
    relion_tomograms: Path | None = None,
    *,
    verdicts: bool = False,
) -> tuple[list[Tomogram], list[npt.NDArray[Any]] | None, list[Candidates]]:
    """Read tomograms, their masks, where given, and their picks in any format.

    `verdicts` keeps what a curation file rejects.
    """
    from t3ssfast.errors import InputError
    from t3ssfast.io import read, read_mask
    from t3ssfast.io.tomogram_names import distinct_names

    tomograms, _ = find_tomograms(tomograms)
    for label, given, one_for_all in (("picks", picks, True), ("membranes", membranes, False)):
        if given and len(given) != len(tomograms) and not (one_for_all and len(given) == 1):
            raise InputError(
                f"There are {len(given)} {label} for {len(tomograms)} tomograms; give one for each."
            )
    volumes = [
        replace(read(path, voxel_size_angstrom=voxel_size), name=name)
        for path, name in zip(tomograms, distinct_names(tomograms), strict=True)
    ]
    masks = [
        read_mask(path, volume, allow_empty=True)
        for path, volume in zip(membranes or [], volumes, strict=False)
    ]
    known: list[Candidates] = []
    if picks:
        known = match_candidates(volumes, tomograms, picks, relion_tomograms, names, reading, verdicts)
    return volumes, masks or None, known


def _contrasts(
    volumes: list[Tomogram],
    contrast: str | None,
    masks: list[npt.NDArray[Any]] | None,
    segmenter: LoadedModel | None = None,
) -> list[str]:
    """Return the contrast of each tomogram, as given or found, and print those that were found."""
    from t3ssfast.detection.find_contrast import contrast_of_each

    found = contrast_of_each(volumes, contrast or "auto", masks, segmenter)
    if (contrast or "auto") == "auto":
        for volume, sign in zip(volumes, found, strict=True):
            log(f"{volume.name}: protein is {sign}")
    return found


def _load_models(trust_model: bool, **models: Path | None) -> dict[str, Any]:
    """Load the model files that were given, by the names of their options."""
    from t3ssfast.models import load_model

    kinds = {"start": "verifier"}
    return {
        name: None
        if path is None
        else load_model(path, model_kind=kinds.get(name, name), trust_model=trust_model)
        for name, path in models.items()
    }


def _load_start(start: str | None, model_kind: str, trust_model: bool) -> LoadedModel | None:
    """Load the model to start from, if any."""
    from t3ssfast.models import load_model

    if start is None:
        return None
    path = None if start == "bundled" else start
    return load_model(path, model_kind=model_kind, trust_model=trust_model)


def _print_metrics(path: Path, model_kind: str, as_json: bool) -> None:
    """Print the validation metrics of a model file."""
    from t3ssfast.models import load_model

    metrics = load_model(path, model_kind=model_kind).metadata.metrics
    if as_json:
        typer.echo(json.dumps({"model": str(path), "figures": metrics}))
        return
    typer.echo(f"wrote {path}; on held-out data:")
    for name, value in metrics.items():
        typer.echo(f"  {METRIC_NAMES.get(name, name.replace('_', ' '))}: {value:.3f}")
