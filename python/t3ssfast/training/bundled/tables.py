"""The tables of the documentation, from the figures that the recipe measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["held_out_tables"]

PROMISES = ("min_precision 0.9", "min_precision 0.95", "min_recall 0.9", "min_recall 0.95")
MEMBRANES = ("everywhere", "outside the wedge", "outside the caps")


def held_out_tables(figures: Mapping[str, Any]) -> str:
    """Return figures.json, as a mapping, as tables in Markdown: detection, domains, views, kinds."""
    return "\n\n".join([_detection(figures), _domains(figures), _views(figures), _kinds(figures)]) + "\n"


def _detection(figures: Mapping[str, Any]) -> str:
    found, low = figures["detection"], figures["candidates_down_to_low_scores"]
    bounds = found["intervals"]
    degrees = f"{found['median_normal_error_degrees']:.1f} degrees"
    pose = f"{found['median_distance_angstrom'] / 10:.1f} nm; {degrees}; {found['polarity_right']:.0%}"
    rows = [
        ("TP; FP; FN", f"{found['true_positives']}; {found['false_positives']}; {found['false_negatives']}"),
        ("precision; recall", "; ".join(_interval(found[n], bounds[n]) for n in ("precision", "recall"))),
        ("F1 (95% interval)", _interval(found["f1"], bounds["f1"])),
        ("average precision of all candidates", f"{low['average_precision']:.3f}"),
        (
            "calibration error: reported candidates; all",
            f"{found['calibration_error']:.3f}; {low['calibration_error']:.3f}",
        ),
        ("distance; angle of the normal (medians); correct polarity", pose),
        ("false positives in a tomogram without T3SS", f"{found['false_positives_without_truth']:.2f}"),
    ]
    for name in PROMISES:
        kept = figures["promises"][name]
        option = "=".join(name.split())
        told = (
            "-" if kept is None else "; ".join(_interval(*_split(kept[n])) for n in ("precision", "recall"))
        )
        rows.append((f"`{option}`: precision; recall", told))
    for name in MEMBRANES:
        m = figures["membrane_on_held_out_simulation"][name]
        values = (m["dice"], m["precision"], m["recall"], m["dice_within_a_voxel"])
        told = "; ".join(f"{value:.3f}" for value in values)
        rows.append((f"membrane, {name}: Dice; precision; recall; Dice within a voxel", told))
    kept = figures["preselection"]
    shares = (kept["windows_kept"], kept["windows_about_particles_kept"])
    rows.append(("coarse scan: windows kept; of those about particles", f"{shares[0]:.0%}; {shares[1]:.1%}"))
    return _table(("", ""), rows)


def _domains(figures: Mapping[str, Any]) -> str:
    rows = [
        (
            name,
            *(str(part[n]) for n in ("truth", "true_positives", "false_positives")),
            f"{part['f1']:.2f}",
            f"{part['average_precision_of_all_candidates']:.2f}",
        )
        for name, part in figures["detection_by_domain"].items()
        if part["truth"]
    ]
    return _table(("domain", "T3SS", "TP", "FP", "F1", "average precision of all candidates"), rows)


def _views(figures: Mapping[str, Any]) -> str:
    rows = [
        (name.removesuffix(" to the beam"), str(part["truth"]), str(part["found"]))
        for name, part in figures["detection_by_view"].items()
    ]
    return _table(("angle between axis and beam", "T3SS", "found"), rows)


def _kinds(figures: Mapping[str, Any]) -> str:
    kinds = figures["kinds"]
    names = list(kinds["counts"])
    rows = [
        (true, *("" if true == taken == "none" else str(kinds["counts"][true][taken]) for taken in names))
        for true in names
    ]
    return _table((f"in {kinds['tomograms']} tomograms with motors; taken for", *names), rows)


def _split(value_and_bounds: Sequence[float]) -> tuple[float, Sequence[float]]:
    return value_and_bounds[0], value_and_bounds[1:]


def _interval(value: float, bounds: Sequence[float]) -> str:
    return f"{value:.2f} ({bounds[0]:.2f}-{bounds[1]:.2f})"


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    aligned = "|---" + "|---:" * (len(header) - 1) + "|"
    lines = [header, *rows]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([text[0].replace("|  |", "| |").replace("|  |", "| |"), aligned, *text[1:]])
