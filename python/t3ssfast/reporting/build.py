"""A report over the results of one or many tomograms."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from t3ssfast.candidates import Candidates
from t3ssfast.curation.results import Results, find_results, open_tomogram_of
from t3ssfast.curation.verdicts import apply_verdicts
from t3ssfast.detection.config import DetectConfig
from t3ssfast.errors import InputError, T3Error
from t3ssfast.io import atomic_path, display_path
from t3ssfast.io.particles import load_all_candidates
from t3ssfast.io.particles.curation import load_all_curations
from t3ssfast.io.particles.particle_file import merge_candidates
from t3ssfast.io.tomogram_names import match_names
from t3ssfast.reporting.images import CANDIDATES_PER_SPRITE, sprites
from t3ssfast.reporting.overview import membrane_points, overview_slices
from t3ssfast.reporting.page import render_page
from t3ssfast.reporting.states import SUMMARY_FILE, has_results, plain_states, states_of
from t3ssfast.reporting.truth import Comparison, compare
from t3ssfast.reporting.views import VIEWS, views_of_candidates
from t3ssfast.runtime.progress import Stages
from t3ssfast.tomogram import StrPath, Tomogram

__all__ = ["report"]

COLUMNS = [
    *("t", "z", "y", "x", "score", "nz", "ny", "nx", "rot", "tilt", "psi", "kind", "cl", "ve"),
    *("chosen", "label", "outcome", "picture"),
]
# Slices of each tomogram, for at most so many tomograms: a page of many tomograms stays a few megabytes.
SLICES_OF_TOMOGRAMS = ((4, 8), (2, 40), (1, 400), (0, 10**9))
MAX_NOTE = 400
# File of a detection with a false-discovery rate.
DECOY_FILE, DECOY_COLUMNS, MAX_DECOYS = "decoys.csv", ("score", "log_odds", "decoy_log_odds"), 100_000
# The reason for verdicts on particles that the detection did not find.
ADDED = "added"


def report(
    folders: StrPath | Sequence[StrPath],
    out: StrPath = "report.html",
    *,
    truth: StrPath | Sequence[StrPath] | None = None,
    curation: StrPath | None = None,
    tomograms: StrPath | Sequence[StrPath] = (),
    title: str | None = None,
    progress: bool = True,
) -> Path:
    """Write one self-contained page over results: pictures of every candidate, scores, and verdicts.

    The page needs no network and no server. Candidates are accepted and rejected in it by mouse and keyboard,
    and the verdicts are saved from it as curation files (`load_curation`). Of the output folder of many
    tomograms it also tells what has become of each, as the summary there (summary.json) says.

    Parameters
    ----------
    folders
        Folders of results, or folders that hold one for each tomogram; one of either, or several.
    out
        HTML file to write.
    truth
        Files or folders of known particles: candidates are marked as true or false, and missed particles are
        shown. Tomograms are matched by name.
    curation
        Curation file whose verdicts, or suggestions (`suggest`), the page opens with.
    tomograms
        Files of the tomograms, or folders with them, if they are not where the detection found them.
    title
        Title of the page; None: the name of the tomogram, or of the first folder.
    progress
        Show a progress bar where standard error is a terminal.

    Returns
    -------
    Path of the page.

    Raises
    ------
    ReadError, InputError
        If a folder or file cannot be read, or a folder holds no results.
    OutputError
        If the page cannot be written.
    """
    with Stages(progress) as stages:
        given = list(map(Path, _as_list(folders)))
        # Of a data set without any result, the page tells what has become of its tomograms.
        with_results = [one for one in given if has_results(one) or not (one / SUMMARY_FILE).is_file()]
        results = find_results(with_results) if with_results or not given else []
        states, problems = states_of(given, results)
        if curation is not None:
            results = _with_verdicts(results, curation)
        comparison = None if truth is None else _compare(results, truth)
        with stages("draw"):
            data = _page_data(results, comparison, _as_list(tomograms))
        data |= {"states": plain_states(states), "problems": problems}
        name = results[0].name if len(results) == 1 else given[0].resolve().name
        data["stem"] = _stem(name)
        page = render_page(title or f"T3SS in {name}", data)
        with atomic_path(out) as temporary:
            temporary.write_text(page, encoding="utf-8")
    return Path(out)


def _as_list(paths: StrPath | Sequence[StrPath]) -> list[StrPath]:
    return [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)


def _stem(name: str) -> str:
    """Return a name for files that a browser saves."""
    kept = "".join(c if c.isalnum() or c in "._-+" else "_" for c in name)
    return kept.strip(".")[:80] or "tomogram"


def _with_verdicts(results: Sequence[Results], curation: StrPath) -> list[Results]:
    """Put the verdicts of a curation file on candidates; particles that it adds become candidates."""
    verdicts = load_all_curations(curation)
    labelled, others = apply_verdicts([one.candidates for one in results], verdicts)
    names = [one.name for one in results]
    if verdicts and not match_names([some.tomogram_name for some in verdicts], names):
        raise InputError(
            f"{display_path(curation)}: its tomograms are {_listed([s.tomogram_name for s in verdicts])}, "
            f"and the results are of {_listed(names)}; give the curation of these tomograms."
        )
    merged = []
    for one, some, more in zip(results, labelled, others, strict=True):
        if len(more):
            size = some.voxel_size_angstrom
            more = replace(
                more,
                centre_zyx=more.centre_zyx * (more.voxel_size_angstrom / size),
                voxel_size_angstrom=size,
                details={"chosen_by": np.full(len(more), ADDED)},
            )
            reasons = some.details.get("chosen_by", np.full(len(some), ""))
            some = merge_candidates([replace(some, details={"chosen_by": reasons}), more])
        merged.append(replace(one, candidates=some))
    return merged


def _compare(results: Sequence[Results], truth: StrPath | Sequence[StrPath]) -> Comparison:
    """Compare candidates with the particles in files and folders."""
    known: dict[str, Candidates] = {}
    names = [one.name for one in results]
    for path in map(Path, _as_list(truth)):
        files = [path]
        if path.is_dir():
            files = sorted([*path.glob("*truth*.star"), *path.glob("*/truth.star")]) or sorted(
                path.glob("*.star")
            )
            if not files:
                raise InputError(f"{display_path(path)}: the folder holds no .star file; give the truth.")
        for file in files:
            for some in load_all_candidates(file):
                known[some.tomogram_name] = some
                if file.stem != "truth":
                    known.setdefault(file.stem.removesuffix("_truth"), some)
                else:
                    known.setdefault(file.resolve().parent.name, some)
    matched = match_names(names, known)
    if len(results) == 1 and not matched and len({id(some) for some in known.values()}) == 1:
        matched = {names[0]: next(iter(known))}
    missing = [name for name in names if name not in matched]
    if missing:
        raise InputError(
            f"There is no truth of {_listed(missing)}, only of {_listed(sorted(known))}; give a file for "
            "each tomogram, an empty one where there are no particles."
        )
    aligned = []
    for one in results:
        some = known[matched[one.name]]
        scale = some.voxel_size_angstrom / one.candidates.voxel_size_angstrom
        size = one.candidates.voxel_size_angstrom
        aligned.append(replace(some, centre_zyx=some.centre_zyx * scale, voxel_size_angstrom=size))
    return compare([one.candidates for one in results], aligned)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (" ..." if len(names) > 3 else "")


def _page_data(
    results: Sequence[Results], comparison: Comparison | None, tomograms: Sequence[StrPath]
) -> dict[str, Any]:
    """Return everything that the page shows, as plain values."""
    shown = [one.candidates for one in results]
    missed = [some[:0] for some in shown] if comparison is None else comparison.missed
    kinds = sorted({str(kind) for some in (*shown, *missed) for kind in some.kind}) or ["t3ss"]
    count = next(slices for slices, limit in SLICES_OF_TOMOGRAMS if len(results) <= limit)
    described: list[dict[str, Any]] = []
    rows: list[list[Any]] = []

    def draw() -> Iterator[npt.NDArray[np.uint8]]:
        """Describe tomogram by tomogram, and yield the views of what it shows."""
        pictures = 0
        for t, (one, lost) in enumerate(zip(results, missed, strict=True)):
            entry, tomogram, membrane = _describe_tomogram(one, tomograms)
            described.append(entry)
            candidates = one.candidates
            outcomes = [""] * len(candidates) if comparison is None else comparison.outcomes[t]
            for some, given in ((candidates, outcomes), (lost, ["fn"] * len(lost))):
                for row in _rows(some, t, given, kinds):
                    rows.append([*row, -1 if tomogram is None else pictures])
                    pictures += tomogram is not None
                if tomogram is not None:
                    yield from views_of_candidates(tomogram, some, one.contrast_sign)
            if tomogram is not None:
                marked = np.concatenate([candidates.centre_zyx, lost.centre_zyx])
                entry["slices"] = overview_slices(tomogram, marked, membrane, one.contrast_sign, count)

    encoded = sprites(draw())
    expected, expected_note = _expected(results)
    scores = [float(score) for some in shown for score in some.score]
    software = next((s for one in results if isinstance(s := one.provenance.get("software"), dict)), {})
    version = str(software.get("t3ssfast", ""))[:40]
    identity = hashlib.sha256(
        repr([[entry["name"] for entry in described], [row[:5] for row in rows]]).encode("utf-8", "replace")
    )
    return {
        "id": identity.hexdigest()[:16],
        "software": f"t3ssfast {version}" if version else "",
        "made": f"Found by t3ssfast {version}." if version else "",
        "kinds": kinds,
        "views": list(VIEWS),
        "per": CANDIDATES_PER_SPRITE,
        "pictures": sum(row[-1] >= 0 for row in rows),
        "sprites": encoded,
        "tomograms": described,
        "columns": COLUMNS,
        "rows": rows,
        "threshold": _lowest_threshold(results, scores),
        "expected": expected,
        "expectedNote": expected_note,
        "calibrated": expected is not None,
        "decoys": _decoys(results),
        "truth": None if comparison is None else comparison.summary,
    }


def _describe_tomogram(
    one: Results, tomograms: Sequence[StrPath]
) -> tuple[dict[str, Any], Tomogram | None, npt.NDArray[Any] | None]:
    """Describe a tomogram; open it and its membrane, where they are found, and note where they are not."""
    provenance, candidates = one.provenance, one.candidates
    notes = provenance.get("notes")
    texts = [str(note)[:MAX_NOTE] for note in notes[:20]] if isinstance(notes, list) else []
    if not provenance:
        texts.append("provenance.json is missing or damaged: the detection may not be complete.")
    tomogram = membrane = None
    try:
        tomogram = open_tomogram_of(one, tomograms)
        membrane = one.read_membrane(tomogram)
    except T3Error as error:
        texts.append(f"Not shown: {error}"[:MAX_NOTE])
    shape = candidates.tomogram_shape
    if shape is None and tomogram is not None:
        shape = tomogram.shape
    entry = {
        "name": one.name,
        "voxel": _rounded(candidates.voxel_size_angstrom, 5),
        "shape": None if shape is None else list(map(int, shape)),
        "notes": texts,
        "seconds": _numbers(provenance.get("seconds")),
        "slices": [],
        "cloud": [] if membrane is None else membrane_points(membrane),
    }
    return entry, tomogram, membrane


def _numbers(values: object) -> dict[str, float]:
    """Return the finite numbers of a dictionary in a file that is not trusted."""
    if not isinstance(values, dict):
        return {}
    pairs = [(str(k)[:40], v) for k, v in values.items() if isinstance(v, (int, float)) and math.isfinite(v)]
    return {name: round(float(value), 2) for name, value in pairs[:40]}


def _rows(
    candidates: Candidates, t: int, outcomes: Sequence[str], kinds: Sequence[str]
) -> Iterator[list[Any]]:
    """Yield the values of `COLUMNS`, except for the picture."""
    euler = candidates.euler_zyz if len(candidates) else np.zeros((0, 3))
    details = candidates.details
    nothing = np.full(len(candidates), np.nan)
    first, second = (details.get(name, nothing) for name in ("classifier_score", "verifier_score"))
    chosen = details.get("chosen_by", np.full(len(candidates), ""))
    for k, outcome in enumerate(outcomes):
        score = None if outcome == "fn" else _rounded(candidates.score[k], 5)
        yield [
            t,
            *(_rounded(value, 3) for value in candidates.centre_zyx[k]),
            score,
            *(_rounded(value, 5) for value in candidates.normal_zyx[k]),
            *(_rounded(value, 3) for value in euler[k]),
            kinds.index(str(candidates.kind[k])),
            *(_rounded(value, 4) for value in (first[k], second[k])),
            str(chosen[k]),
            str(candidates.label[k]),
            outcome,
        ]


def _rounded(value: Any, digits: int) -> float | None:
    number = round(float(value), digits)
    return number if math.isfinite(number) else None


def _decoys(results: Sequence[Results]) -> list[float] | None:
    """Return the scores of the decoys, where all results have any: candidates scored with a reversed axis.

    The file has the log-odds of candidates and decoys before the calibration, and the calibrated scores of
    the candidates alone; those of the decoys are interpolated between them.
    """
    scores: list[float] = []
    for one in results:
        try:
            table = pd.read_csv(one.folder / DECOY_FILE, usecols=list(DECOY_COLUMNS), nrows=MAX_DECOYS)
            values = table[list(DECOY_COLUMNS)].to_numpy(np.float64)
        except (OSError, ValueError):
            return None
        if not np.isfinite(values).all() or not len(values):
            return None
        score, log_odds, decoy = values[np.argsort(values[:, 1], kind="stable")].T
        scores += np.interp(decoy, log_odds, np.maximum.accumulate(score)).clip(0, 1).round(4).tolist()
    return scores or None


def _lowest_threshold(results: Sequence[Results], scores: Sequence[float]) -> float:
    """Return the score, to two digits, above which these results have every candidate.

    It is the lowest threshold of the detections; where one is not known, the lowest score.
    """
    lowest = min(scores, default=DetectConfig.score_threshold)
    configs = [one.provenance.get("config") for one in results]
    given = [_score_threshold(config) for config in configs if isinstance(config, dict)]
    thresholds = [value for value in given if value is not None]
    if thresholds and len(thresholds) == len(results):
        lowest = min(lowest, *thresholds)
    return math.floor(lowest * 100) / 100


def _score_threshold(config: dict[str, Any]) -> float | None:
    """Return the threshold in the options of a detection; None if another option set it."""
    value = config.get("score_threshold")
    others = any(config.get(name) is not None for name in ("min_precision", "min_recall", "max_fdr"))
    if others or not isinstance(value, int | float) or not 0 <= value <= 1:
        return None
    return float(value)


def _expected(results: Sequence[Results]) -> tuple[dict[str, Any] | None, str]:
    """Return the curves of expected precision and recall that all results have in common, or why not."""
    curves = [_expected_curve(one.provenance.get("expected")) for one in results]
    if not any(curves):
        return (
            None,
            "The models of these results are not calibrated, so no precision is expected from a score.",
        )
    if any(curve != curves[0] for curve in curves):
        return None, "The results were made with different models, so no precision is expected in common."
    return curves[0], ""


def _expected_curve(given: object) -> dict[str, Any] | None:
    """Return the curve in a provenance as plain values; None unless it is one."""
    if not isinstance(given, dict):
        return None
    try:
        names = ("score", "precision", "recall")
        curve: dict[str, Any] = {name: [round(float(v), 5) for v in given[name]] for name in names}
        values = np.array([curve[name] for name in names])
        counts = {name: int(given[name]) for name in ("tomograms", "truth")}
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    ordered = values.shape[1:] > (1,) and np.isfinite(values).all() and (np.diff(values[0]) > 0).all()
    inside = bool(ordered and (values >= 0).all() and (values <= 1).all() and values.shape[1] <= 1000)
    return {**curve, **counts} if inside else None
