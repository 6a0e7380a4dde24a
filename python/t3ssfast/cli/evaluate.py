"""`t3ssfast evaluate`: true and false positives against truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from t3ssfast.cli.candidate_files import Tomogram, Tomograms, VoxelSize, load

if TYPE_CHECKING:
    from t3ssfast.candidates import Candidates

# Files of these names are called after the folder that holds them.
FOUND = ("candidates.star",)
KNOWN = ("truth.star", "candidates.star")
LOOKALIKES = ("distractors.star",)
# Other files in a folder that are taken for candidates.
SUFFIXES = (".star", ".csv", ".tbl", ".mod")
# What a file's name may say about its content after the tomogram's name.
ROLES = ("_candidates", "_truth", "_picks", "_distractors")


def evaluate(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Candidates (.star, .csv, .tbl, .mod, .json, .txt), a folder of results, or a folder of "
            "such folders; the last path is the truth, likewise, unless --truth is given.",
            metavar="CANDIDATES... [TRUTH]",
            show_default=False,
        ),
    ],
    truth: Annotated[
        list[Path] | None,
        typer.Option("--truth", "-t", help="Known particles; once for each file.", metavar="PATH"),
    ] = None,
    voxel_size: VoxelSize = None,
    tolerance_nm: Annotated[
        float, typer.Option(help="Largest distance of a candidate from the particle it found.")
    ] = 12.0,
    distractors: Annotated[
        list[Path] | None,
        typer.Option(help="Known look-alikes, to name what the false positives sit on.", metavar="PATH"),
    ] = None,
    tomogram: Tomogram = None,
    tomograms: Tomograms = None,
    min_score: Annotated[float, typer.Option(help="Leave out candidates with a lower score.")] = 0.0,
    beta: Annotated[float, typer.Option(help="Of F-beta: how much more recall counts.")] = 2.0,
    intervals: Annotated[bool, typer.Option(help="Bootstrap 95% confidence intervals.")] = True,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the precision-recall curve and the reliability diagram.", metavar="PNG"),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json-file", help="Write the figures, as JSON.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Count true and false positives of candidates against truth.

    Files are paired by name: TS_01.star, TS_01_truth.star, TS_01/candidates.star and TS_01/truth.star belong
    together. Inside of files with several tomograms, so are tomograms of the same name. Everything is pooled.

    \b
    Examples:
      t3ssfast evaluate out/candidates.star simulated/truth.star --plot curve.png
      t3ssfast evaluate results/ truth/ --json-file figures.json
      t3ssfast evaluate TS_01.star TS_02.star -t TS_01_truth.star -t TS_02_truth.star
    """
    from t3ssfast.evaluation.evaluate import evaluate as compare
    from t3ssfast.evaluation.report import draw_curves, pooled_table, tomogram_table
    from t3ssfast.io import atomic_path

    if not truth:
        if len(paths) < 2:
            raise typer.BadParameter("there is no truth; give it last, or as --truth.")
        paths, truth = paths[:-1], paths[-1:]
    groups = [_files(paths, FOUND), _files(truth, KNOWN)]
    if distractors:
        groups.append(_files(distractors, LOOKALIKES))
    found: list[list[Candidates]] = [[] for _ in groups]
    for together in _paired(groups):
        some, *others = (
            load(path, voxel_size=voxel_size, tomogram=tomogram, tomograms=tomograms, names=names)
            for path, names in zip(together, (FOUND, KNOWN, LOOKALIKES), strict=False)
        )
        aligned = _align([[c[c.score >= min_score] for c in some], *others])
        for group, more in zip(found, aligned, strict=True):
            group += more
    result = compare(found[0], found[1], tolerance_nm * 10, distractors=found[2] if len(found) > 2 else None)
    several = len(result.tallies) > 1
    if plot is not None:
        draw_curves(result, plot)
    if as_json or json_file is not None:
        figures = json.dumps(
            result.to_dict(beta=beta, intervals=intervals, per_tomogram=several), allow_nan=False
        )
        if json_file is not None:
            with atomic_path(json_file) as temporary:
                temporary.write_text(figures + "\n", encoding="utf-8")
        if as_json:
            typer.echo(figures)
            return
    from rich.console import Console

    if several:
        Console().print(tomogram_table(result))
    Console().print(pooled_table(result, beta=beta, intervals=intervals))


def _files(paths: Sequence[Path], names: tuple[str, ...]) -> dict[str, Path]:
    """Candidate files by the name of what they are about; a folder of folders is as many files."""
    from t3ssfast.errors import InputError

    found: dict[str, Path] = {}
    for path in paths:
        inside = [path]
        if path.is_dir() and not any((path / name).is_file() for name in names):
            inside = [p for p in sorted(path.iterdir()) if any((p / name).is_file() for name in names)]
            inside += [p for p in sorted(path.iterdir()) if p.is_file() and p.suffix in SUFFIXES]
            if not inside:
                raise InputError(
                    f"{path} holds neither {' nor '.join(names)}, nor folders with one, nor candidate files; "
                    "give the folder that does."
                )
        for file in inside:
            name = _name(file)
            if name in found:
                raise InputError(
                    f"{found[name]} and {file} are both called {name}; name files after their tomograms."
                )
            found[name] = file
    return found


def _name(path: Path) -> str:
    """What a file is about: its name without its role, or its folder's where its name is only a role."""
    if path.is_dir():
        return path.resolve().name
    stem = path.stem
    for role in ROLES:
        stem = stem.removesuffix(role)
    return path.resolve().parent.name if stem in [role[1:] for role in ROLES] else stem


def _paired(groups: Sequence[dict[str, Path]]) -> list[tuple[Path, ...]]:
    """The files of each name, one of every group; single files belong together whatever their names."""
    from t3ssfast.errors import InputError

    if all(len(group) == 1 for group in groups):
        return [tuple(next(iter(group.values())) for group in groups)]
    for group in groups[1:]:
        for name in groups[0].keys() ^ group.keys():
            has, lacks = ("candidates", "truth") if name in groups[0] else ("truth", "candidates")
            if group is not groups[1]:
                has, lacks = "files", "a counterpart among them"
            raise InputError(
                f"There are {has} of {name} but no {lacks}; give files of the same names, with no particles "
                "in them where there are none."
            )
    return [tuple(group[name] for group in groups) for name in sorted(groups[0])]


def _align(groups: Sequence[Sequence[Candidates]]) -> list[list[Candidates]]:
    """One entry for each tomogram in every group; empty ones where a group has none of it.

    Where no group has more than one tomogram they are taken to be the same, whatever their names.
    """
    from t3ssfast.candidates import Candidates

    if all(len(group) <= 1 for group in groups):
        keyed = [{"": group[0]} if group else {} for group in groups]
    else:
        keyed = [{some.tomogram_name: some for some in group} for group in groups]
    names = list(dict.fromkeys(name for group in keyed for name in group))
    # The voxel size of no candidates has no effect.
    return [[group.get(name, Candidates.empty(10.0)) for name in names] for group in keyed]
