"""Options of `extract` and `average`, and the matching of tomograms with their candidates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from t3ssfast.cli.candidate_files import above, load, renamed

if TYPE_CHECKING:
    from t3ssfast.candidates import Candidates
    from t3ssfast.cli.options import ParticleReading
    from t3ssfast.tomogram import Tomogram

CandidateFiles = Annotated[
    list[Path],
    typer.Option(
        "--candidates",
        "-c",
        help="Candidates: one file or results folder per tomogram, in the same order, or a single file, or a "
        "folder of results folders, for all tomograms, matched by name.",
        metavar="FILE",
    ),
]
Box = Annotated[int | None, typer.Option(help="Edge of the boxes in voxels.", metavar="N")]
BoxNm = Annotated[float | None, typer.Option(help="Edge of the boxes in nm.", metavar="NM")]
TiltRange = Annotated[
    tuple[float, float],
    typer.Option(help="Lowest and highest tilt angle about y, degrees.", metavar="LOW HIGH"),
]


def candidates_of_each(tomograms: Sequence[Path], candidate_files: Sequence[Path]) -> list[Path]:
    """Return files of candidates; a folder with a folder of results per tomogram is replaced by these."""
    from t3ssfast.io.tomogram_names import distinct_names, match_names

    if len(candidate_files) != 1 or not candidate_files[0].is_dir():
        return list(candidate_files)
    results = {path.parent.name: path.parent for path in candidate_files[0].glob("*/candidates.star")}
    names = distinct_names(tomograms)
    matched = match_names(names, results)
    if (candidate_files[0] / "candidates.star").exists() or len(matched) < len(names):
        return list(candidate_files)
    return [results[matched[name]] for name in names]


def read_matched(
    tomograms: list[Path],
    candidate_files: list[Path],
    voxel_size: float | None,
    relion_tomograms: Path | None,
    min_score: float | None,
    names: list[str] | None = None,
    reading: ParticleReading | None = None,
) -> tuple[list[Tomogram], list[Candidates]]:
    """Read tomograms and the candidates of each; candidates of other tomograms are ignored.

    Tomograms named alike in different folders get different names.
    """
    from t3ssfast.io import read
    from t3ssfast.io.tomogram_names import distinct_names

    volumes = [
        replace(read(path, voxel_size_angstrom=voxel_size), name=name)
        for path, name in zip(tomograms, distinct_names(tomograms), strict=True)
    ]
    matched = match_candidates(volumes, tomograms, candidate_files, relion_tomograms, names, reading)
    return volumes, [above(some, min_score) for some in matched]


def match_candidates(
    volumes: Sequence[Tomogram],
    paths: Sequence[Path],
    candidate_files: Sequence[Path],
    relion_tomograms: Path | None = None,
    names: list[str] | None = None,
    reading: ParticleReading | None = None,
    verdicts: bool = False,
) -> list[Candidates]:
    """Read the candidates of each tomogram, from one file each in the same order or from a single file.

    They take the name of their tomogram. `names` are those of `--tomogram-name`. `verdicts` keeps what a
    curation file rejects.
    """
    from t3ssfast.errors import InputError
    from t3ssfast.io import display_path, tomogram_name
    from t3ssfast.io.particles.plausible import check_position

    if len(candidate_files) not in (1, len(volumes)):
        raise InputError(
            f"{len(candidate_files)} files of candidates were given for {len(volumes)} tomograms; give "
            "one for each, or one for all."
        )
    only = volumes[0].name if len(volumes) == 1 else None
    file_names = [tomogram_name(path) for path in paths]
    matched: list[Candidates] = []
    for index, (path, volume) in enumerate(zip(paths, volumes, strict=True)):
        file = candidate_files[index if len(candidate_files) > 1 else 0]
        size = volume.voxel_size_angstrom
        sets = load(
            file,
            voxel_size=size,
            tomogram=path,
            tomograms=relion_tomograms,
            reading=reading,
            verdicts=verdicts,
        )
        sets = renamed(sets, names, only)
        own_file = len(volumes) == len(candidate_files)
        # Of tomograms named alike, one file for all can only mean one of them.
        own_name = own_file or file_names.count(file_names[index]) == 1
        called = [volume.name, file_names[index]] if own_name else [volume.name]
        chosen = _of_tomogram(sets, called, volumes, display_path(file), alone=own_file)
        check_position(
            chosen.centre_zyx * (chosen.voxel_size_angstrom / size),
            volume.shape,
            size,
            display_path(file),
            volume.name,
        )
        matched.append(replace(chosen, tomogram_name=volume.name))
    return matched


def _of_tomogram(
    sets: Sequence[Candidates], called: list[str], volumes: Sequence[Tomogram], file: str, *, alone: bool
) -> Candidates:
    """Return the candidates of a tomogram with these names; its own file (`alone`) need not name it."""
    from t3ssfast.errors import InputError
    from t3ssfast.io.tomogram_names import match_names, same_name

    by_name = {some.tomogram_name: some for some in sets}
    match = match_names(called, by_name)
    if match:
        return by_name[next(iter(match.values()))]
    listed = ", ".join(repr(some.tomogram_name) for some in sets[:5]) or "none"
    if alone and len(sets) == 1:
        other = next((v.name for v in volumes if same_name(v.name, sets[0].tomogram_name)), None)
        if other is None:
            return sets[0]
        raise InputError(
            f"{file}: its candidates are of {other!r}, and it was given for {called[0]!r}; give the files "
            "of candidates in the order of the tomograms."
        )
    raise InputError(
        f"{file}: it has no candidates of {called[0]!r}, only of {listed}; give one file per tomogram, in "
        f"the same order, or --tomogram-name {called[0]}=OTHER with the name in the file."
    )


def contrast_of_each(
    volumes: Sequence[Tomogram], candidate_files: Sequence[Path], contrast: str
) -> list[str]:
    """Return "dark" or "light" for each tomogram: as given, or with "auto" from a detection or the tomogram.

    Candidates in a folder of results have the contrast that the detection found beside them. For others it is
    looked for as a detection does.
    """
    from t3ssfast.detection.find_contrast import check_contrast, find_contrasts

    check_contrast(contrast)
    if contrast != "auto":
        return [contrast] * len(volumes)
    known: dict[int, str] = {}
    for index, volume in enumerate(volumes):
        file = candidate_files[index if len(candidate_files) > 1 else 0]
        found = _recorded_contrast(file, volume, alone=len(candidate_files) == len(volumes))
        if found is not None:
            known[index] = found
    missing = [index for index in range(len(volumes)) if index not in known]
    for index, (found, how) in zip(missing, find_contrasts([volumes[k] for k in missing]), strict=True):
        known[index] = found
        typer.echo(f"{volumes[index].name}: protein is {found} ({how})", err=True)
    return [known[index] for index in range(len(volumes))]


def _recorded_contrast(file: Path, volume: Tomogram, *, alone: bool) -> str | None:
    """Return the contrast that a detection of this tomogram recorded beside a file; None without one."""
    from t3ssfast.io.tomogram_names import same_name

    folder = file if file.is_dir() else file.parent
    # Candidates of a whole data set lie beside the folders with the results of each tomogram.
    of_data_set = folder / volume.name / "provenance.json"
    try:
        provenance = json.loads(
            (of_data_set if of_data_set.is_file() else folder / "provenance.json").read_text(encoding="utf-8")
        )
        name, sign = str(provenance["input"]["name"]), int(provenance["contrast"]["sign"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not alone and not of_data_set.is_file() and not same_name(name, volume.name):
        return None
    return "dark" if sign > 0 else "light"
