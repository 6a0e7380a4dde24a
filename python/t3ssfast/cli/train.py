"""`t3ssfast train`: the models from one's own tomograms, and the recipe of the bundled ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy.typing as npt

    from t3ssfast.candidates import Candidates
    from t3ssfast.models import LoadedModel
    from t3ssfast.tomogram import Tomogram

app = typer.Typer(help="Train the segmenter, the classifier or the verifier.", no_args_is_help=True)

Tomograms = Annotated[
    list[Path],
    typer.Argument(help="Tomograms with dark protein (.mrc, .rec, .map, OME-Zarr).", show_default=False),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="TorchScript file to write.")]
VoxelSize = Annotated[
    float | None, typer.Option(help="Voxel size of the tomograms in Angstrom, instead of the headers'.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of everything random.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Optimiser steps.")]
Device = Annotated[str, typer.Option(help='"cpu", "cuda", "cuda:1" or "auto".')]
Resume = Annotated[bool, typer.Option(help="Go on from the checkpoint of an interrupted run.")]
AllPicks = Annotated[
    list[Path],
    typer.Option("--picks", "-p", help="All T3SS of each tomogram, in their order (.star, .tbl ...)."),
]
Membranes = Annotated[
    list[Path] | None,
    typer.Option("--membranes", "-m", help="Membrane mask of each tomogram, in their order."),
]
SegmenterFile = Annotated[
    Path | None, typer.Option(help="TorchScript U-Net instead of the bundled one.", metavar="FILE")
]
LearningRate = Annotated[
    float | None, typer.Option(help="Peak of the schedule; lower to go on from a model.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")]


def _report(path: Path, kind: str, as_json: bool) -> None:
    """Say what came out."""
    from t3ssfast.models import load_model

    figures = load_model(path, model_kind=kind).metadata.metrics
    if as_json:
        typer.echo(json.dumps({"model": str(path), "figures": figures}))
        return
    typer.echo(f"wrote {path}; on held-out data: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))


def _given(**options: Any) -> dict[str, Any]:
    """Those options that were given; the others keep the defaults of the training."""
    return {name: value for name, value in options.items() if value is not None}


def _check_lengths(tomograms: list[Path], **lists: list[Path] | None) -> None:
    """Refuse lists that do not go with the tomograms, before anything is read."""
    from t3ssfast.errors import InputError

    for name, given in lists.items():
        if given and len(given) != len(tomograms):
            raise InputError(
                f"There are {len(given)} {name} for {len(tomograms)} tomograms; give one for each."
            )


def _read_tomograms(paths: list[Path], voxel_size: float | None) -> list[Tomogram]:
    from t3ssfast.io import read

    return [read(p, voxel_size_angstrom=voxel_size) for p in paths]


def _read_masks(paths: list[Path], volumes: list[Tomogram]) -> list[npt.NDArray[Any]]:
    """Masks of tomograms; a mask's own voxel size is often missing and does not matter."""
    from t3ssfast.io import read

    return [
        read(p, voxel_size_angstrom=v.voxel_size_angstrom).data for p, v in zip(paths, volumes, strict=True)
    ]


def _read_labelled(
    tomograms: list[Path], picks: list[Path], membranes: list[Path] | None, voxel_size: float | None
) -> tuple[list[Tomogram], list[Candidates], list[npt.NDArray[Any]] | None]:
    """Tomograms, their picks, in whatever format, and their membranes, where masks are given."""
    from t3ssfast.io.particles import load_candidates

    _check_lengths(tomograms, picks=picks, membranes=membranes)
    volumes = _read_tomograms(tomograms, voxel_size)
    known = [
        load_candidates(p, voxel_size_angstrom=v.voxel_size_angstrom, tomogram_shape=v.shape)
        for p, v in zip(picks, volumes, strict=True)
    ]
    return volumes, known, _read_masks(membranes, volumes) if membranes else None


def _begun(start: str | None, kind: str) -> LoadedModel | None:
    """The model to go on from, where one is given."""
    from t3ssfast.models import load_model

    return None if start is None else load_model(None if start == "bundled" else start, model_kind=kind)


def _tell(line: str) -> None:
    """Say how far it is."""
    typer.echo(line, err=True)


@app.command()
def segmenter(
    tomograms: Tomograms,
    membranes: Annotated[
        list[Path], typer.Option("--membranes", "-m", help="Membrane mask of each tomogram, in their order.")
    ],
    out: Out = Path("segmenter.pt"),
    voxel_size: VoxelSize = None,
    seed: Seed = 0,
    steps: Steps = None,
    device: Device = "cpu",
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Train the U-Net on tomograms and membrane masks.

    \b
    Example:
      t3ssfast train segmenter a.mrc b.mrc -m a_membrane.mrc -m b_membrane.mrc -o segmenter.pt
    """
    from t3ssfast.training import train_segmenter

    _check_lengths(tomograms, membranes=membranes)
    volumes = _read_tomograms(tomograms, voxel_size)
    masks = _read_masks(membranes, volumes)
    train_segmenter(volumes, masks, out, device=device, resume=resume, **_given(seed=seed, steps=steps))
    _report(out, "segmenter", as_json)


@app.command()
def classifier(
    tomograms: Tomograms,
    picks: Annotated[
        list[Path],
        typer.Option(
            "--picks", "-p", help="Picks of each tomogram, in their order (.star, .tbl, .mod, .csv ...)."
        ),
    ],
    membranes: Membranes = None,
    out: Out = Path("classifier.pt"),
    voxel_size: VoxelSize = None,
    seed: Seed = 0,
    steps: Steps = None,
    rounds: Annotated[int | None, typer.Option(min=0, help="Rounds of hard-negative mining.")] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help='TorchScript LeNet to go on from, or "bundled"; it says grid and window.', metavar="FILE"
        ),
    ] = None,
    learning_rate: LearningRate = None,
    device: Device = "cpu",
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Train the LeNet on tomograms and picks of T3SS.

    \b
    Examples:
      t3ssfast train classifier a.mrc b.mrc -p a.star -p b.star -o classifier.pt
      t3ssfast train classifier a.mrc -p a.star --start bundled --steps 60 --learning-rate 1e-4
      torchrun --nproc-per-node 2 --no-python t3ssfast train classifier a.mrc -p a.star
    """
    from t3ssfast.training import train_classifier

    volumes, known, masks = _read_labelled(tomograms, picks, membranes, voxel_size)
    begun = _begun(start, "classifier")
    options = _given(seed=seed, steps=steps, rounds=rounds, learning_rate=learning_rate)
    train_classifier(volumes, known, masks, out, start=begun, device=device, resume=resume, **options)
    _report(out, "classifier", as_json)


@app.command()
def verifier(
    tomograms: Tomograms,
    picks: AllPicks,
    classifier: Annotated[
        Path | None,
        typer.Option(help="TorchScript LeNet whose candidates are looked at; the bundled one if not given."),
    ] = None,
    segmenter: SegmenterFile = None,
    membranes: Membranes = None,
    out: Out = Path("verifier.pt"),
    voxel_size: VoxelSize = None,
    seed: Seed = 0,
    steps: Steps = None,
    start: Annotated[
        str | None,
        typer.Option(help='Verifier to go on from, or "bundled"; it says grid and box.', metavar="FILE"),
    ] = None,
    learning_rate: LearningRate = None,
    device: Device = "cpu",
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Train the network that looks at candidates again, on those that the classifier finds.

    \b
    Examples:
      t3ssfast train verifier a.mrc b.mrc -p a.star -p b.star --classifier classifier.pt
      t3ssfast train verifier a.mrc -p a.star --start bundled --steps 60 --learning-rate 1e-4
    """
    from t3ssfast.models import load_model
    from t3ssfast.training import train_verifier
    from t3ssfast.training.calibrate import find_candidates

    volumes, known, masks = _read_labelled(tomograms, picks, membranes, voxel_size)
    begun = _begun(start, "verifier")
    found = find_candidates(
        load_model(classifier, model_kind="classifier"),
        volumes,
        segmenter=segmenter,
        membranes=masks,
        device=device,
        report=_tell,
    )
    options = _given(seed=seed, steps=steps, learning_rate=learning_rate)
    train_verifier(volumes, known, found, out, start=begun, device=device, resume=resume, **options)
    _report(out, "verifier", as_json)


@app.command()
def calibrate(
    classifier: Annotated[
        Path, typer.Argument(help="TorchScript LeNet; its metadata are rewritten where no verifier is given.")
    ],
    tomograms: Tomograms,
    picks: AllPicks,
    verifier: Annotated[
        Path | None,
        typer.Option(help="Verifier that gives the scores; its metadata are rewritten.", metavar="FILE"),
    ] = None,
    segmenter: SegmenterFile = None,
    membranes: Membranes = None,
    voxel_size: VoxelSize = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Make probabilities of scores, from tomograms that the models have not been trained on.

    \b
    Example:
      t3ssfast train calibrate classifier.pt c.mrc d.mrc -p c.star -p d.star
    """
    from t3ssfast.training.calibrate import calibrate_models

    volumes, known, masks = _read_labelled(tomograms, picks, membranes, voxel_size)
    learned = calibrate_models(
        classifier,
        volumes,
        known,
        verifier=verifier,
        segmenter=segmenter,
        membranes=masks,
        device=device,
        report=_tell,
    )
    written = classifier if verifier is None else verifier
    if as_json:
        typer.echo(json.dumps({"model": str(written), "calibration": learned.to_dict()}))
        return
    error = learned.metrics
    typer.echo(
        f"wrote {written}; calibration error {error['calibration_error_before']:.3f} before, "
        f"{error['calibration_error_after']:.3f} after, in tomograms left out"
    )


@app.command()
def tune(
    tomograms: Tomograms,
    picks: AllPicks,
    start: Annotated[
        Path | None,
        typer.Option(help="Verifier to go on from; the bundled one if not given.", metavar="FILE"),
    ] = None,
    classifier: Annotated[
        Path | None,
        typer.Option(help="TorchScript LeNet whose candidates are looked at; the bundled one if not given."),
    ] = None,
    segmenter: SegmenterFile = None,
    membranes: Membranes = None,
    out: Out = Path("tuned.pt"),
    voxel_size: VoxelSize = None,
    folds: Annotated[
        int, typer.Option(min=2, help="Parts of the picks, each left out once to calibrate on.")
    ] = 4,
    seed: Seed = 0,
    steps: Steps = None,
    learning_rate: LearningRate = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Fit the bundled verifier to one's own tomograms by few picks, and say anew what its scores are worth.

    \b
    Example:
      t3ssfast train tune a.mrc -p a.star -o tuned.pt
      t3ssfast detect b.mrc -o found/ --verifier tuned.pt
    """
    from t3ssfast.training.fine_tune import fine_tune_verifier

    volumes, known, masks = _read_labelled(tomograms, picks, membranes, voxel_size)
    fine_tune_verifier(
        volumes,
        known,
        out,
        start=start,
        classifier=classifier,
        segmenter=segmenter,
        membranes=masks,
        folds=folds,
        seed=seed,
        device=device,
        report=_tell,
        **_given(steps=steps, learning_rate=learning_rate),
    )
    _report(out, "verifier", as_json)


@app.command("few-labels")
def few_labels(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the curve (.csv, .png) and models.")],
    counts: Annotated[
        list[int] | None,
        typer.Option(
            "--picks", min=3, help="A number of picks; may be given again.", show_default="5 10 20 50"
        ),
    ] = None,
    classifier: Annotated[
        Path | None, typer.Option(help="TorchScript LeNet that finds candidates, not the bundled one.")
    ] = None,
    verifier: Annotated[
        Path | None, typer.Option(help="Verifier to start from instead of the bundled one.")
    ] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Show what fine-tuning on few picks does in a simulated domain that the models have not seen.

    \b
    Example:
      t3ssfast train few-labels -o few --picks 10 --picks 50
    """
    from t3ssfast.training.few_shot import few_shot_curve

    rows = few_shot_curve(
        out,
        counts=tuple(counts) if counts else (5, 10, 20, 50),
        classifier=classifier,
        verifier=verifier,
        seed=seed,
        device=device,
        report=_tell,
    )
    typer.echo(json.dumps(rows, indent=None if as_json else 1))


@app.command()
def bundled(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for models, checksums, figures and tomograms.")
    ],
    seed: Seed = 0,
    size: Annotated[str, typer.Option(help='"full", or "small" to see that it runs.')] = "full",
    tomograms: Annotated[
        int | None, typer.Option(min=2, help="Training tomograms, instead of the size's.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Simulations at a time.")] = 1,
    device: Device = "cpu",
    resume: Annotated[
        bool, typer.Option(help="Go on from what an interrupted run left in the folder.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Make the bundled models again: simulate, train, calibrate, measure, pin.

    \b
    Example:
      t3ssfast train bundled -o weights --jobs 2
    """
    from t3ssfast.training.bundled import train_bundled

    figures = train_bundled(
        out,
        seed=seed,
        size=size,
        tomograms=tomograms,
        jobs=jobs,
        device=device,
        resume=resume,
        report=_tell,
    )
    typer.echo(json.dumps(figures, indent=None if as_json else 1))
