"""`t3ssfast evaluate`: count true and false positives against known particles."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from t3ssfast.cli import options
from t3ssfast.cli.candidate_files import above, load, of_kind, renamed
from t3ssfast.errors import InputError

if TYPE_CHECKING:
    from t3ssfast.candidates import Candidates
    from t3ssfast.evaluation.confusion import Confusion

# Files in a results folder, for candidates, truth and distractors; they are named after their folder.
FOLDER_FILES = (("candidates.star",), ("truth.star", "candidates.star"), ("distractors.star",))
# Other files in a folder that are read as candidates.
SUFFIXES = (".star", ".csv", ".tsv", ".tbl", ".mod", ".cbox", ".ndjson", ".xml")
# Endings of a file name that follow the tomogram's name.
ROLES = ("_candidates", "_truth", "_picks", "_distractors")


def evaluate(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Candidate files (.star, .csv, .tbl, .mod, .json ...), results folders, or folders that "
            "contain them. The last path is the truth, unless --truth is given.",
            metavar="CANDIDATES... [TRUTH]",
            show_default=False,
        ),
    ],
    truth: Annotated[
        list[Path] | None,
        typer.Option("--truth", "-t", help="File or folder of known particles; repeatable.", metavar="PATH"),
    ] = None,
    voxel_size: options.CandidateVoxelSize = None,
    format: options.ParticleFormat = None,
    angstrom: options.Angstrom = None,
    columns: options.ColumnNames = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help='Kind of particles to count, or "all".',
            metavar="KIND",
            show_default="that of the truth, t3ss if it has several",
        ),
    ] = None,
    tolerance_nm: Annotated[
        float, typer.Option(help="Largest distance between a candidate and its particle, nm.")
    ] = 12.0,
    distractors: Annotated[
        list[Path] | None,
        typer.Option(help="Known look-alikes, to classify the false positives.", metavar="PATH"),
    ] = None,
    tomogram: options.TomogramFile = None,
    tomograms: options.RelionTomograms = None,
    min_score: Annotated[
        float | None, typer.Option(help="Ignore candidates with lower scores.", show_default="all candidates")
    ] = None,
    tomogram_name: options.TomogramNames = None,
    beta: Annotated[float, typer.Option(help="Weight of recall in F-beta.")] = 2.0,
    intervals: Annotated[bool, typer.Option(help="Show 95% bootstrap confidence intervals.")] = True,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the precision-recall curve and the reliability diagram.", metavar="PNG"),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json-file", help="Write the metrics as JSON.", metavar="FILE")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare candidates with known particles.

    True and false positives and missed particles are counted.

    Where the truth holds several kinds of particles, those of --kind are counted. A table shows which kind
    the candidates on particles of each kind were taken for, in the truth and among the look-alikes.

    Files are paired by name: TS_01.star, TS_01_truth.star, TS_01/candidates.star and TS_01/truth.star belong
    to one tomogram; files named alike are paired in their order. Files with several tomograms are paired by
    tomogram name. All tomograms are pooled.

    \b
    Examples:
      t3ssfast evaluate out/candidates.star simulated/truth.star --plot curve.png
      t3ssfast evaluate results/ truth/ --json-file metrics.json
      t3ssfast evaluate TS_01.star TS_02.star -t TS_01_truth.star -t TS_02_truth.star
    """
    from rich.console import Console

    from t3ssfast.evaluation.evaluate import evaluate as evaluate_candidates
    from t3ssfast.evaluation.report import confusion_table, draw_curves, pooled_table, tomogram_table
    from t3ssfast.io import atomic_path

    if not truth:
        if len(paths) < 2:
            raise typer.BadParameter("there is no truth; give it as the last path, or with --truth.")
        paths, truth = paths[:-1], paths[-1:]
    reading = options.ParticleReading(format, angstrom, columns)
    given = [group for group in (paths, truth, distractors) if group]
    files = [_files(group, names) for group, names in zip(given, FOLDER_FILES, strict=False)]
    file_names = _distinct_names(files[0])
    groups: list[list[Candidates]] = [[] for _ in given]
    for paired in _pair_by_name(files):
        loaded = [
            load(
                path,
                voxel_size=voxel_size,
                tomogram=tomogram,
                tomograms=tomograms,
                names=names,
                reading=reading,
            )
            for path, names in zip(paired, FOLDER_FILES, strict=False)
        ]
        loaded = [renamed(sets, tomogram_name) for sets in loaded]
        loaded[0] = [above(candidates, min_score) for candidates in loaded[0]]
        aligned = _align(loaded, paired)
        if all(len(sets) <= 1 for sets in loaded):
            # The name by which the files were paired: those inside the files may differ, or all be alike.
            name = file_names[paired[0]]
            aligned = [[replace(some, tomogram_name=name) for some in sets] for sets in aligned]
        _check_positions(aligned[:2], paired[:2])
        for group, entries in zip(groups, aligned, strict=True):
            group += entries
    found, known, *lookalikes = groups
    confusion = _confusion(groups, tolerance_nm * 10)
    found, known, others = _of_one_kind(found, known, kind)
    if not lookalikes and any(map(len, others)):
        lookalikes = [others]
    result = evaluate_candidates(
        found, known, tolerance_nm * 10, distractors=lookalikes[0] if lookalikes else None
    )
    several = len(result.matches) > 1
    if plot is not None:
        draw_curves(result, plot)
    if as_json or json_file is not None:
        metrics = result.to_dict(beta=beta, intervals=intervals, per_tomogram=several)
        if confusion is not None:
            metrics["kinds"] = confusion.to_dict()
        text = json.dumps(metrics, allow_nan=False)
        if json_file is not None:
            with atomic_path(json_file) as temporary:
                temporary.write_text(text + "\n", encoding="utf-8")
        if as_json:
            typer.echo(text)
            return
    console = Console()
    if several:
        console.print(tomogram_table(result, intervals=intervals))
    console.print(pooled_table(result, beta=beta, intervals=intervals))
    if confusion is not None:
        console.print(confusion_table(confusion))


def _confusion(groups: Sequence[Sequence[Candidates]], tolerance_angstrom: float) -> Confusion | None:
    """Compare the kinds of candidates with those of truth and look-alikes; None if there is one kind."""
    from t3ssfast.candidates import PARTICLE_KINDS
    from t3ssfast.evaluation.confusion import confusion_of_kinds
    from t3ssfast.io.particles.particle_file import merge_candidates

    found, known, *lookalikes = groups
    if lookalikes:
        pairs = zip(known, lookalikes[0], strict=True)
        known = [merge_candidates([true, others.of_kinds(*PARTICLE_KINDS)]) for true, others in pairs]
    several = len(_kinds(known)) > 1
    return confusion_of_kinds(found, known, tolerance_angstrom) if several else None


def _of_one_kind(
    found: list[Candidates], known: list[Candidates], kind: str | None
) -> tuple[list[Candidates], list[Candidates], list[Candidates]]:
    """Return candidates and truth of a kind, and the rest of the truth.

    Without a kind it is that of the truth, T3SS where the truth has several. Candidates that are never of
    this kind come from programs with other names for it. Class numbers without names are no kinds: all count.
    """
    from t3ssfast.candidates import T3SS
    from t3ssfast.io.particles.particle_file import is_unnamed

    kinds = _kinds(known)
    if kind == "all" or not kinds or (kind is None and any(map(is_unnamed, kinds))):
        return found, known, [some[:0] for some in known]
    chosen = kind or (T3SS if len(kinds) > 1 else kinds.pop())
    if kind or chosen in _kinds(found):
        found = [of_kind(some, chosen) for some in found]
    return found, [of_kind(some, chosen) for some in known], [some[some.kind != chosen] for some in known]


def _kinds(sets: Sequence[Candidates]) -> set[str]:
    return {str(kind) for some in sets for kind in some.kind}


def _files(paths: Sequence[Path], names: tuple[str, ...]) -> list[tuple[str, Path]]:
    """Return files and results folders with their names; other folders are replaced by their content."""

    def is_results_folder(path: Path) -> bool:
        return any((path / name).is_file() for name in names)

    found: list[tuple[str, Path]] = []
    for path in paths:
        files = [path]
        content = sorted(path.iterdir()) if path.is_dir() else []
        inside = [p for p in content if is_results_folder(p)]
        if inside and is_results_folder(path):
            # The output folder of many tomograms also holds a file with the candidates of all.
            files = inside
        elif path.is_dir() and not is_results_folder(path):
            files = inside + [p for p in content if p.is_file() and p.suffix in SUFFIXES]
            if not files:
                raise InputError(
                    f"{path} holds neither {' nor '.join(names)}, nor folders with one, nor candidate files; "
                    "give the folder that does."
                )
        found += [(_tomogram_name(file), file) for file in files]
    return found


def _tomogram_name(path: Path) -> str:
    """Return the file name without its role, or the name of the folder if only the role is left."""
    if path.is_dir():
        return path.resolve().name
    stem = path.stem
    for role in ROLES:
        stem = stem.removesuffix(role)
    return path.resolve().parent.name if f"_{stem}" in ROLES else stem


def _distinct_names(files: Sequence[tuple[str, Path]]) -> dict[Path, str]:
    """Return the name of each file; the path where several have the same name."""
    from t3ssfast.io import display_path

    count = Counter(name for name, _ in files)
    return {path: name if count[name] == 1 else display_path(path) for name, path in files}


def _pair_by_name(groups: Sequence[list[tuple[str, Path]]]) -> list[tuple[Path, ...]]:
    """Return one file of every group for each tomogram.

    Groups of one file are paired whatever their names, and so are files named alike within a group, which are
    paired in their order.
    """
    from t3ssfast.io.tomogram_names import match_names

    in_order = [tuple(path for _, path in files) for files in zip(*groups, strict=False)]
    lengths = {len(group) for group in groups}
    if lengths == {1}:
        return in_order
    for group in groups:
        names = [name for name, _ in group]
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is None:
            continue
        if len(lengths) == 1:
            return in_order
        first, second, *_ = (path for name, path in group if name == repeated)
        raise InputError(
            f"{first} and {second} are both called {repeated}; name files after their tomograms, or give as "
            "many files of candidates as of truth, in the same order."
        )
    candidates, *others = [dict(group) for group in groups]
    matched = [match_names(candidates, other) for other in others]
    for label, other, match in zip(("truth", "distractors"), others, matched, strict=False):
        unmatched = [(name, "candidates", label) for name in candidates if name not in match]
        unmatched += [(name, label, "candidates") for name in other if name not in match.values()]
        for name, present, missing in unmatched:
            raise InputError(
                f"There are {present} of {name} but no {missing}; give files of the same names, empty ones "
                "for tomograms without particles."
            )
    return [
        (path, *(other[match[name]] for other, match in zip(others, matched, strict=True)))
        for name, path in sorted(candidates.items())
    ]


def _align(groups: Sequence[Sequence[Candidates]], files: Sequence[Path]) -> list[list[Candidates]]:
    """Give every group one entry per tomogram, empty if it has none of that name.

    Groups of at most one tomogram are aligned whatever their names. InputError if groups of several have no
    tomogram in common.
    """
    from t3ssfast.candidates import Candidates
    from t3ssfast.io.tomogram_names import match_names, require_common_names

    if all(len(group) <= 1 for group in groups):
        by_name = [{"": group[0]} if group else {} for group in groups]
    else:
        by_name = [{some.tomogram_name: some for some in group} for group in groups]
        # Look-alikes may be absent from every tomogram.
        require_common_names({str(f): names for f, names in zip(files[:2], by_name[:2], strict=True)})
    names: list[str] = []
    for number, group in enumerate(by_name):
        match = match_names(group, names)
        by_name[number] = {match.get(name, name): some for name, some in group.items()}
        names += [name for name in group if name not in match]
    # The voxel size of an empty entry has no effect.
    return [[group.get(name, Candidates.empty(10.0)) for name in names] for group in by_name]


def _check_positions(groups: Sequence[Sequence[Candidates]], files: Sequence[Path]) -> None:
    """Refuse a file with most particles outside of the tomogram, or all in its corner.

    The size of the tomogram is that of the other file, where it knows it.
    """
    from t3ssfast.io.particles.plausible import check_position, check_sizes_of_pixels, share_outside

    for of_tomogram in zip(*groups, strict=True):
        for some, known, file in zip(of_tomogram, reversed(of_tomogram), files, strict=True):
            shape, size = known.tomogram_shape, known.voxel_size_angstrom
            centre = some.centre_zyx * (some.voxel_size_angstrom / size)
            if not shape or share_outside(known.centre_zyx, shape):
                continue
            # Single false candidates may lie anywhere; a wrong unit moves most of them.
            if not 0 < share_outside(centre, shape) <= 0.5:
                check_position(centre, shape, size, file, known.tomogram_name)
            xyz, pixel_size = some.centre_zyx[:, ::-1], some.voxel_size_angstrom
            check_sizes_of_pixels(xyz, pixel_size, shape, size, file)
