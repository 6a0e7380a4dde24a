"""`t3ssfast detect`: find T3SS in tomograms."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t3ssfast.cli import options
from t3ssfast.errors import BusyError, InputError, ReadError

if TYPE_CHECKING:
    from t3ssfast.detection import Detection

PICTURES = ("candidates.png", "gallery.png")
# Rows of the printed table; candidates.csv has all of them.
TABLE_ROWS = 20
# Pause when other processes are working on every tomogram that is left.
BUSY_SECONDS = 2.0


def detect(
    tomograms: options.Tomograms,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Output folder; several tomograms get one subfolder each.")
    ],
    segmenter: options.SegmenterFile = None,
    classifier: options.ClassifierFile = None,
    verifier: options.VerifierFile = None,
    verify: Annotated[
        bool,
        typer.Option(
            help="Re-score candidates with the verifier. With --classifier this needs --verifier, too."
        ),
    ] = True,
    membrane: options.Membranes = None,
    voxel_size: options.VoxelSize = None,
    device: options.Device = "auto",
    threshold: Annotated[
        float | None, typer.Option(help="Minimum score of a candidate, 0 to 1.", show_default="0.5")
    ] = None,
    min_precision: Annotated[
        float | None,
        typer.Option(help="Set the threshold for this expected precision, 0 to 1.", show_default=False),
    ] = None,
    min_recall: Annotated[
        float | None,
        typer.Option(help="Set the threshold for this expected recall, 0 to 1.", show_default=False),
    ] = None,
    contrast: options.AutoContrast = None,
    threads: options.Threads = None,
    memory_budget: options.MemoryBudget = None,
    trust_model: options.TrustModel = False,
    resume: Annotated[
        bool, typer.Option(help="Resume an interrupted run and skip tomograms that are finished.")
    ] = True,
    png: Annotated[bool, typer.Option(help="Draw the candidates on slices.")] = True,
    as_json: options.AsJson = False,
) -> None:
    """Find T3SS in tomograms.

    Writes candidates.star, .csv, .mod and .tbl, membrane.mrc, candidates.png, gallery.png and
    provenance.json.

    An interrupted run resumes at the slab where it stopped. Tomograms that are finished with the same models
    and options are skipped. Several processes can share one list of tomograms. A tomogram that cannot be read
    is reported and the others are searched; the exit code is then 1.

    \b
    Examples:
      t3ssfast detect TS_01.mrc -o TS_01
      t3ssfast detect TS_01.mrc TS_02.mrc -o results --voxel-size 13.6 --threshold 0.7
    """
    from t3ssfast.detection import run_to_folder
    from t3ssfast.io import display_path
    from t3ssfast.models import load_model

    masks, folders = options.membrane_of_each(tomograms, membrane), result_folders(tomograms, out)
    config = options.detect_config(
        score_threshold=threshold,
        min_precision=min_precision,
        min_recall=min_recall,
        contrast=contrast,
        threads=threads,
        memory_budget=memory_budget,
        verify=verify,
    )
    if verifier is not None and not verify:
        raise InputError(f"{display_path(verifier)} was given with --no-verify; leave one of the two out.")
    # Models are loaded once for all tomograms, so that an unusable one fails before the first search.
    load = partial(load_model, trust_model=trust_model)
    search = partial(
        run_to_folder,
        classifier=load(classifier, model_kind="classifier"),
        segmenter=None if membrane else load(segmenter, model_kind="segmenter"),
        verifier=None if verifier is None else load(verifier, model_kind="verifier"),
        voxel_size_angstrom=voxel_size,
        device=device,
        config=config,
        progress=not as_json,
        resume=resume,
    )
    runs = [
        _Run(search, path, mask, folder, voxel_size, png)
        for path, mask, folder in zip(tomograms, masks, folders, strict=True)
    ]
    results, failures = _run_all(runs, print_results=not as_json)
    if as_json:
        typer.echo(json.dumps(results))
    if failures:
        typer.echo(
            f"{failures} of {len(tomograms)} tomograms could not be searched; the others are finished.",
            err=True,
        )
        raise typer.Exit(1)


def result_folders(tomograms: Sequence[Path], out: Path) -> list[Path]:
    """Return the output folder of each tomogram: `out` for a single one, else a subfolder of its name."""
    from t3ssfast.io import tomogram_name

    if len(tomograms) == 1:
        return [out]
    names = [tomogram_name(path) for path in tomograms]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(
            f"Several tomograms are called {repeated[0]!r} and their results would overwrite each other; "
            "run them one by one with different output folders."
        )
    return [out / name for name in names]


@dataclass(frozen=True)
class _Run:
    """The search of one tomogram, with the pictures of the result."""

    # run_to_folder with the options that all tomograms share.
    search: Callable[..., tuple[Detection, bool]]
    path: Path
    mask: Path | None
    folder: Path
    voxel_size: float | None
    png: bool

    def __call__(self) -> tuple[Detection, bool]:
        """Return the detection, and whether it is new rather than read from an earlier run."""
        detection, is_new = self.search(
            self.folder, self.path, membrane=self.mask, draw=self.draw if self.png else None
        )
        if self.png and not all((self.folder / name).exists() for name in PICTURES):
            self.draw(detection)
        return detection, is_new

    def draw(self, detection: Detection) -> None:
        from t3ssfast.io import read
        from t3ssfast.plotting import draw_candidates, draw_gallery

        tomogram = read(self.path, voxel_size_angstrom=self.voxel_size)
        membrane = detection.membrane
        if self.mask is not None:
            membrane = read(self.mask, voxel_size_angstrom=tomogram.voxel_size_angstrom).data
        sign = detection.provenance["contrast"]["sign"]
        overview, gallery = (self.folder / name for name in PICTURES)
        draw_candidates(overview, tomogram, detection.candidates, membrane=membrane, contrast_sign=sign)
        draw_gallery(gallery, tomogram, detection.candidates, contrast_sign=sign)


def _run_all(runs: Sequence[_Run], *, print_results: bool) -> tuple[list[dict[str, Any]], int]:
    """Search every tomogram; return the results in the order given, and the number of failures.

    A tomogram that another process is working on is tried again after the others. If that process is killed,
    its tomogram is searched here.
    """
    from t3ssfast.io import display_path

    results: dict[int, dict[str, Any]] = {}
    failures = 0
    remaining = dict(enumerate(runs))
    reported: set[int] = set()
    while remaining:
        busy: dict[int, _Run] = {}
        for number, run in remaining.items():
            try:
                detection, is_new = run()
            except BusyError as error:
                busy[number] = run
                if number not in reported:
                    reported.add(number)
                    typer.echo(f"postponed: {error}", err=True)
            except (ReadError, InputError) as error:
                # A problem with one tomogram does not concern the others.
                if len(runs) == 1:
                    raise
                failures += 1
                name = display_path(run.path)
                typer.echo(f"error: {'' if name in str(error) else f'{name}: '}{error}", err=True)
            else:
                table = detection.candidates.to_dataframe().to_dict(orient="records")
                results[number] = {"tomogram": str(run.path), "folder": str(run.folder), "candidates": table}
                results[number] |= {key: detection.provenance[key] for key in ("counts", "seconds", "notes")}
                if print_results:
                    if len(runs) > 1:
                        typer.echo(f"{display_path(run.path)}:")
                    _print(detection)
                    typer.echo(f"{'wrote' if is_new else 'finished before:'} {display_path(run.folder)}")
        if len(busy) == len(remaining):
            time.sleep(BUSY_SECONDS)
        remaining = busy
    return [results[number] for number in sorted(results)], failures


def _print(detection: Detection) -> None:
    """Print the best candidates, the notes, and the time taken."""
    from rich.console import Console
    from rich.table import Table

    candidates, provenance = detection.candidates, detection.provenance
    console = Console()
    if len(candidates):
        table = Table(title=f"{len(candidates)} candidate{'' if len(candidates) == 1 else 's'}")
        for column in ("", "score", "z", "y", "x", "tilt", "psi"):
            table.add_column(column, justify="right")
        poses = candidates.to_dataframe()[["z", "y", "x", "tilt", "psi"]]
        for number, pose in enumerate(poses[:TABLE_ROWS].to_numpy()):
            values = [f"{value:.1f}" for value in pose]
            table.add_row(f"{number + 1}", f"{candidates.score[number]:.3f}", *values)
        if len(candidates) > TABLE_ROWS:
            table.add_row("...", *[""] * 6)
        console.print(table)
    else:
        console.print("no candidates")
    for note in provenance["notes"]:
        console.print(f"note: {note}")
    counts, seconds = provenance["counts"], sum(provenance["seconds"].values())
    console.print(
        f"{counts['windows_judged']:,} of {counts['windows_searched']:,} windows of the search region "
        f"classified in {seconds:.1f} s"
    )
