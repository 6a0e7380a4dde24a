"""`t3ssfast detect`: tomograms in, candidates out."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from t3ssfast.detection import Detection
    from t3ssfast.detection.config import DetectConfig

PICTURES = ("candidates.png", "gallery.png")
# Between two looks at whether another process has finished.
BUSY_SECONDS = 2.0


def detect(
    tomograms: Annotated[
        list[Path],
        typer.Argument(
            help="Tomograms (.mrc, .rec, .map, also .gz and .bz2; OME-Zarr).",
            show_default=False,
            # Told like all else that is wrong with a file.
            readable=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder to write to; several tomograms get a folder each in it."),
    ],
    segmenter: Annotated[
        Path | None, typer.Option(help="TorchScript U-Net instead of the bundled one.", metavar="FILE")
    ] = None,
    classifier: Annotated[
        Path | None, typer.Option(help="TorchScript LeNet instead of the bundled one.", metavar="FILE")
    ] = None,
    verifier: Annotated[
        Path | None,
        typer.Option(
            help="TorchScript network that looks at candidates again, instead of the bundled one.",
            metavar="FILE",
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option(help="Look at candidates again; with a --classifier only if --verifier is given.")
    ] = True,
    membrane: Annotated[
        list[Path] | None,
        typer.Option(
            help="Membrane mask of the tomogram, instead of the U-Net; once for each tomogram.",
            metavar="FILE",
        ),
    ] = None,
    voxel_size: Annotated[
        float | None, typer.Option(help="Voxel size in Angstrom, instead of the headers'.")
    ] = None,
    device: Annotated[str, typer.Option(help='"auto", "cpu", "cuda", "cuda:1".')] = "auto",
    threshold: Annotated[
        float | None, typer.Option(help="Lowest score of a candidate, 0 to 1.", show_default="0.5")
    ] = None,
    min_precision: Annotated[
        float | None,
        typer.Option(help="Instead of a threshold: expect so much precision.", show_default=False),
    ] = None,
    min_recall: Annotated[
        float | None,
        typer.Option(help="Instead of a threshold: expect so much recall.", show_default=False),
    ] = None,
    contrast: Annotated[
        str | None, typer.Option(help='Protein is "dark", "light" or "auto".', show_default="auto")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Processor threads.", show_default="as set")] = None,
    memory_budget: Annotated[float | None, typer.Option(help="Memory to use, GiB.", show_default="2")] = None,
    trust_model: Annotated[
        bool,
        typer.Option("--trust-model", help="Load the model files unchecked; they can then run any code."),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(help="Go on with what an earlier run was stopped at, and skip what is finished."),
    ] = True,
    png: Annotated[bool, typer.Option(help="Draw the candidates on slices, too.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the candidates as JSON.")] = False,
) -> None:
    """Find T3SS in tomograms.

    Writes candidates.star .csv .mod .tbl, membrane.mrc, candidates.png, gallery.png and provenance.json.

    Run again after it was stopped, it goes on at the slab it was stopped in, and skips tomograms that are
    finished with the same models and options; several processes given the same list share it. A tomogram
    that cannot be read is told, and the others are searched all the same; the exit code is then 1.

    \b
    Example:
      t3ssfast detect TS_01.mrc TS_02.mrc -o results --voxel-size 13.6
    """
    from t3ssfast.errors import BusyError, InputError, ReadError
    from t3ssfast.io import display_path
    from t3ssfast.models import load_model

    masks: list[Path | None] = [*membrane] if membrane else [None] * len(tomograms)
    if len(masks) != len(tomograms):
        raise InputError(
            f"There are {len(masks)} membrane masks for {len(tomograms)} tomograms; give one for each."
        )
    folders = _folders(tomograms, out)
    config = _config(threshold, min_precision, min_recall, contrast, threads, memory_budget, verify)
    # Once for all tomograms; a model that cannot be used fails before the first is searched.
    judge = load_model(classifier, model_kind="classifier", trust_model=trust_model)
    finder = None if membrane else load_model(segmenter, model_kind="segmenter", trust_model=trust_model)
    second = None
    if verifier is not None:
        if not verify:
            raise InputError(
                f"{display_path(verifier)} was given with --no-verify; leave one of the two out."
            )
        second = load_model(verifier, model_kind="verifier", trust_model=trust_model)

    def search(path: Path, mask: Path | None, folder: Path) -> dict[str, Any]:
        from t3ssfast.detection import run_to_folder

        detection, new = run_to_folder(
            folder,
            path,
            segmenter=finder,
            classifier=judge,
            verifier=second,
            membrane=mask,
            voxel_size_angstrom=voxel_size,
            device=device,
            config=config,
            progress=not as_json,
            resume=resume,
            draw=(lambda found: _draw(path, voxel_size, found, mask, folder)) if png else None,
        )
        if png and not all((folder / name).exists() for name in PICTURES):
            _draw(path, voxel_size, detection, mask, folder)
        if not as_json:
            if len(tomograms) > 1:
                typer.echo(f"{display_path(path)}:")
            _print(detection)
            typer.echo(f"{'wrote' if new else 'finished before:'} {display_path(folder)}")
        return _summary(path, folder, detection)

    report: dict[int, dict[str, Any]] = {}
    left = list(enumerate(zip(tomograms, masks, folders, strict=True)))
    told: set[int] = set()
    failed = 0
    while left:
        busy = []
        for number, (path, mask, folder) in left:
            try:
                report[number] = search(path, mask, folder)
            except BusyError as error:
                busy.append((number, (path, mask, folder)))
                if number not in told:
                    told.add(number)
                    typer.echo(f"left for later: {error}", err=True)
            except (ReadError, InputError) as error:
                # What is wrong with one tomogram says nothing about the next.
                if len(tomograms) == 1:
                    raise
                failed += 1
                which = "" if display_path(path) in str(error) else f"{display_path(path)}: "
                typer.echo(f"error: {which}{error}", err=True)
        if len(busy) == len(left):
            # Others have all that is left; should one of them be killed, its tomogram is taken over.
            time.sleep(BUSY_SECONDS)
        left = busy
    if as_json:
        typer.echo(json.dumps([report[number] for number in sorted(report)]))
    if failed:
        typer.echo(f"{failed} of {len(tomograms)} tomograms could not be searched; the others are.", err=True)
        raise typer.Exit(1)


def _config(
    threshold: float | None,
    min_precision: float | None,
    min_recall: float | None,
    contrast: str | None,
    threads: int | None,
    memory_budget: float | None,
    verify: bool,
) -> DetectConfig:
    """The defaults, with what was given on the command line."""
    from t3ssfast.detection.config import DetectConfig

    budget = None if memory_budget is None else int(memory_budget * 2**30)
    given: dict[str, Any] = {
        "score_threshold": threshold,
        "min_precision": min_precision,
        "min_recall": min_recall,
        "contrast": contrast,
        "threads": threads,
        "memory_budget_bytes": budget,
        "verify": verify,
    }
    return DetectConfig(**{name: value for name, value in given.items() if value is not None})


def _folders(tomograms: list[Path], out: Path) -> list[Path]:
    """Where the results of each go: `out` itself for one, a folder of its name in it for several."""
    from t3ssfast.errors import InputError
    from t3ssfast.io import tomogram_name

    if len(tomograms) == 1:
        return [out]
    names = [tomogram_name(path) for path in tomograms]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InputError(
            f"Several tomograms are called {sorted(twice)[0]!r} and their results would overwrite each "
            f"other; run them one by one into folders of their own."
        )
    return [out / name for name in names]


def _draw(
    path: Path, voxel_size: float | None, detection: Detection, mask: Path | None, folder: Path
) -> None:
    from t3ssfast.io import read
    from t3ssfast.plotting import draw_candidates, draw_gallery

    source = read(path, voxel_size_angstrom=voxel_size)
    membrane = detection.membrane
    if mask is not None:
        membrane = read(mask, voxel_size_angstrom=source.voxel_size_angstrom).data
    sign = detection.provenance["contrast"]["sign"]
    candidates = detection.candidates
    overview, gallery = (folder / name for name in PICTURES)
    draw_candidates(overview, source, candidates, membrane=membrane, contrast_sign=sign)
    draw_gallery(gallery, source, candidates, contrast_sign=sign)


def _summary(path: Path, folder: Path, detection: Detection) -> dict[str, Any]:
    rows = detection.candidates.to_dataframe().to_dict(orient="records")
    return {
        "tomogram": str(path),
        "folder": str(folder),
        "candidates": rows,
        "counts": detection.provenance["counts"],
        "seconds": detection.provenance["seconds"],
        "notes": detection.provenance["notes"],
    }


def _print(detection: Detection) -> None:
    """The candidates in a table, the best first, and how long it took."""
    from rich.console import Console
    from rich.table import Table

    shown_rows = 20
    candidates, provenance = detection.candidates, detection.provenance
    number_found = f"{len(candidates)} candidate{'' if len(candidates) == 1 else 's'}"
    table = Table(title=number_found)
    for column in ("", "score", "z", "y", "x", "tilt", "psi"):
        table.add_column(column, justify="right")
    rows = zip(candidates.score, candidates.centre_zyx, candidates.euler_zyz, strict=True)
    for number, (score, centre, euler) in enumerate(rows, start=1):
        if number > shown_rows:
            table.add_row("...", *[""] * 6)
            break
        values = [f"{value:.1f}" for value in (*centre.tolist(), *euler[1:].tolist())]
        table.add_row(f"{number}", f"{float(score):.3f}", *values)
    console = Console()
    if len(candidates):
        console.print(table)
    else:
        console.print("no candidates")
    for note in provenance["notes"]:
        console.print(f"note: {note}")
    judged, near = provenance["counts"]["windows_judged"], provenance["counts"]["windows_searched"]
    console.print(f"{judged:,} of {near:,} windows of the search region judged, {_time(provenance)}")


def _time(provenance: dict[str, Any]) -> str:
    return f"{sum(provenance['seconds'].values()):.1f} s"
