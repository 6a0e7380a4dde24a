"""`t3ssfast report`: one page over results, to look at candidates and judge them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from t3ssfast.cli import options

Results = Annotated[
    list[Path],
    typer.Argument(
        help="Folders of results, or folders that hold one for each tomogram.",
        metavar="FOLDER...",
        show_default=False,
        readable=False,
    ),
]


def report(
    folders: Results,
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file to write.", metavar="FILE")] = Path(
        "report.html"
    ),
    truth: Annotated[
        list[Path] | None,
        typer.Option(
            "--truth",
            "-t",
            help="File or folder of known particles: marks what is true, false and missed; repeatable.",
            metavar="PATH",
        ),
    ] = None,
    curation: Annotated[
        Path | None,
        typer.Option(
            "--curation",
            "-c",
            help="Curation file (.json, .csv, .star) with verdicts or suggestions to open the page with.",
            metavar="FILE",
        ),
    ] = None,
    tomograms: Annotated[
        list[Path] | None,
        typer.Option(
            "--tomograms",
            help="Tomograms, or a folder with them, if they are no longer where they were; repeatable.",
            metavar="PATH",
        ),
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="Title of the page.", show_default="the name of the results")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Write a page to look at results and to judge candidates.

    It shows pictures and scores, and takes verdicts by mouse and keyboard.

    The page is a single file that needs no network. Verdicts are saved from it as JSON, CSV or STAR.
    `t3ssfast train tune` learns from these files, and other commands read the accepted particles in them.

    \b
    Examples:
      t3ssfast report results/ -o report.html
      t3ssfast report TS_01 TS_02 -o report.html --truth truth/
      t3ssfast report results/ -o report.html --curation suggested.json
    """
    from t3ssfast.io import display_path
    from t3ssfast.reporting import report as write

    path = write(
        folders,
        out,
        truth=truth,
        curation=curation,
        tomograms=tomograms or (),
        title=title,
        progress=not as_json,
    )
    size = path.stat().st_size
    if as_json:
        typer.echo(json.dumps({"file": str(path), "bytes": size}))
    else:
        typer.echo(f"wrote {display_path(path)} ({size / 1e6:.1f} MB)")
