"""Tables and plots of an evaluation."""

from __future__ import annotations

import math

from rich.markup import escape
from rich.table import Table

from t3ssfast.evaluation.confusion import NONE, Confusion
from t3ssfast.evaluation.curves import reliability
from t3ssfast.evaluation.result import Evaluation
from t3ssfast.io import atomic_path
from t3ssfast.runtime.figures import new_figure
from t3ssfast.tomogram import StrPath

__all__ = ["confusion_table", "draw_curves", "pooled_table", "tomogram_table"]

# Instead of a precision without candidates, or a recall without particles.
UNDEFINED = "-"
# Label, metric, and text of each row of the pooled table; rows whose metric is undefined are left out.
ROWS = (
    ("tomograms", "tomograms_evaluated", "{tomograms_evaluated}"),
    ("candidates", "candidates", "{candidates}"),
    ("truth", "truth", "{truth}"),
    ("true positives (TP)", "true_positives", "{true_positives}"),
    ("false positives (FP)", "false_positives", "{false_positives}"),
    ("false negatives (FN)", "false_negatives", "{false_negatives}"),
    ("precision", "precision", "{precision:.3f}"),
    ("recall", "recall", "{recall:.3f}"),
    ("F1", "f1", "{f1:.3f}"),
    ("F{beta:g}", "f_beta", "{f_beta:.3f}"),
    ("average precision", "average_precision", "{average_precision:.3f}"),
    ("precision at recall 0.9", "precision_at_recall_0.9", "{at_recall:.3f}"),
    ("best F1 on the curve", "best_f1_threshold", "{best_f1:.3f} at score {best_f1_threshold:.3f}"),
    ("calibration error", "calibration_error", "{calibration_error:.3f}"),
    ("FP per tomogram without T3SS", "false_positives_without_truth", "{false_positives_without_truth:.2f}"),
    ("median distance", "median_distance_angstrom", "{distance_nm:.1f} nm"),
    ("median normal error", "median_normal_error_degrees", "{median_normal_error_degrees:.0f} degrees"),
    ("correct polarity", "polarity_right", "{polarity_right:.0%}"),
)


def pooled_table(evaluation: Evaluation, *, beta: float = 2.0, intervals: bool = False) -> Table:
    """Build a table of the pooled metrics, one per row."""
    table = Table(title=f"Evaluation, matched within {evaluation.tolerance_angstrom / 10:g} nm")
    table.add_column("metric")
    table.add_column("value", justify="right")
    if intervals:
        table.add_column("95% interval", justify="right")
    metrics = evaluation.to_dict(beta=beta, intervals=intervals)
    renamed = {
        "at_recall": metrics["precision_at_recall_0.9"],
        "distance_nm": evaluation.median_distance_angstrom / 10,
    }
    bounds = metrics.get("intervals", {})
    for label, name, text in ROWS:
        if metrics[name] is not None:
            interval = [_interval(*bounds[name])] if name in bounds else []
            value = text.format(**metrics, **renamed)
            if name in _without_data(evaluation):
                interval, value = [], UNDEFINED
            table.add_row(label.format(beta=beta), value, *interval)
    for kind, count in evaluation.false_positive_kinds.items():
        table.add_row(escape(f"FP on {kind}"), f"{count}")
    return table


def confusion_table(confusion: Confusion) -> Table:
    """Build a table of the kinds of particles: a row per true kind, a column per kind that was found."""
    table = Table(title="Kinds: true (rows) and found (columns)")
    names = [*confusion.kinds, NONE]
    table.add_column("")
    for name in names:
        table.add_column(escape(name if name != NONE else "not found"), justify="right")
    table.add_column("F1", justify="right")
    for true in names:
        label = escape(true if true != NONE else "no particle")
        counts = ["" if true == found == NONE else f"{confusion.count(true, found)}" for found in names]
        table.add_row(label, *counts, "" if true == NONE else f"{confusion.f1(true):.3f}")
    return table


def tomogram_table(evaluation: Evaluation, *, intervals: bool = False) -> Table:
    """Build a table with one row per tomogram."""
    table = Table(title="By tomogram")
    # Names of tomograms often differ in their last characters alone.
    table.add_column("tomogram", overflow="fold")
    columns = ["TP", "FP", "FN", "precision", "recall", "F1", *["95% interval of F1"] * intervals]
    for name in columns:
        table.add_column(name, justify="right")
    for one in evaluation.per_tomogram:
        counts = [f"{n}" for n in (one.true_positives, one.false_positives, one.false_negatives)]
        metrics = [
            UNDEFINED if name in _without_data(one) else f"{getattr(one, name):.3f}"
            for name in ("precision", "recall", "f1")
        ]
        interval = [_interval(*one.intervals()["f1"])] if intervals else []
        table.add_row(escape(one.matches[0].name), *counts, *metrics, *interval)
    return table


def _without_data(evaluation: Evaluation) -> tuple[str, ...]:
    """Return the metrics whose value is a convention, because no candidate or no particle is there."""
    return ("precision",) * (evaluation.n_candidates == 0) + ("recall",) * (evaluation.n_truth == 0)


def _interval(low: float, high: float) -> str:
    return f"{low:.3f} to {high:.3f}"


def draw_curves(evaluation: Evaluation, path: StrPath) -> None:
    """Draw the precision-recall curve and the reliability diagram as a PNG, atomically."""
    figure = new_figure(9.0, 4.0, 150)
    curve, diagram = figure.subplots(1, 2)
    curve.step(evaluation.curve_recall, evaluation.curve_precision, where="post", color="0.2")
    label = f"all, F1 {evaluation.f1:.2f}"
    curve.plot([evaluation.recall], [evaluation.precision], "o", color="tab:red", label=label)
    curve.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    curve.set_title(f"average precision {evaluation.average_precision:.2f}")
    curve.legend(loc="lower left")
    count, mean_score, fraction = reliability(evaluation.scores, evaluation.hits)
    filled = count > 0
    diagram.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    diagram.plot(mean_score[filled], fraction[filled], "o-", color="tab:blue")
    for x, y, n in zip(mean_score[filled], fraction[filled], count[filled], strict=True):
        diagram.annotate(f"{n:.0f}", (x, y), textcoords="offset points", xytext=(4, -10), fontsize=7)
    diagram.set(xlabel="score", ylabel="fraction true", xlim=(0, 1.02), ylim=(0, 1.02))
    error = evaluation.calibration_error
    diagram.set_title("no candidates" if math.isnan(error) else f"calibration error {error:.3f}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
