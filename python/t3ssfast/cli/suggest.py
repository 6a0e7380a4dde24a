"""`t3ssfast suggest`: the candidates to look at next."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from t3ssfast.cli import options
from t3ssfast.cli.report import Results
from t3ssfast.runtime.counted import counted


def suggest(
    folders: Results,
    n: Annotated[int, typer.Option("-n", min=1, help="Number of candidates to suggest.")] = 20,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Curation file to write: .json, .csv or .star.", metavar="FILE"),
    ] = Path("suggested.json"),
    curation: Annotated[
        Path | None,
        typer.Option(
            "--curation", "-c", help="Curation file with the verdicts so far, which are kept.", metavar="FILE"
        ),
    ] = None,
    random_share: Annotated[
        float, typer.Option(min=0, max=1, help="Part that is drawn at random, to estimate the precision.")
    ] = 0.25,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Suggest the candidates whose verdict teaches most.

    They are those with the least certain scores, those on which classifier and verifier disagree, spread over
    tomograms and kinds, and some drawn at random, whose verdicts estimate the precision. Detect with a low
    --threshold, such as 0.1, so that there are doubtful candidates to choose from.

    \b
    Example:
      t3ssfast suggest results/ -n 20 -o suggested.json
      t3ssfast report results/ -o report.html --curation suggested.json
    """
    from t3ssfast.curation import estimate_precision, save_curation
    from t3ssfast.curation import suggest as choose
    from t3ssfast.errors import InputError
    from t3ssfast.io import display_path

    chosen = choose(folders, n, curation=curation, random_share=random_share, seed=seed)
    save_curation(chosen, out)
    waiting = [some[some.label == ""] for some in chosen]
    reasons = Counter(str(why) for some in waiting for why in some.details["chosen_by"])
    try:
        estimate = str(estimate_precision(chosen))
    except InputError:
        estimate = None
    count = sum(map(len, waiting))
    if as_json:
        content = {"file": str(out), "suggested": count, "reasons": dict(reasons), "precision": estimate}
        typer.echo(json.dumps(content))
        return
    if estimate is not None:
        typer.echo(f"drawn at random so far: {estimate}")
    listed = ", ".join(f"{number} {why}" for why, number in reasons.most_common())
    typer.echo(f"wrote {counted(count, 'candidate')} to look at ({listed}) to {display_path(out)}")
    lowest = min((float(some.score.min()) for some in waiting if len(some)), default=0.0)
    if lowest >= 0.5:
        typer.echo(
            "all have scores of at least 0.5; after t3ssfast detect with --threshold 0.1, doubtful ones can "
            "be suggested, too"
        )
