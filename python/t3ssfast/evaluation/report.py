"""Tables and plots of an evaluation."""

from __future__ import annotations

import math

from rich.markup import escape
from rich.table import Table

from t3ssfast.evaluation.bootstrap import Interval
from t3ssfast.evaluation.curves import reliability
from t3ssfast.evaluation.evaluation import Evaluation
from t3ssfast.io import atomic_path
from t3ssfast.tomogram import StrPath

__all__ = ["draw_curves", "pooled_table", "tomogram_table"]


def pooled_table(evaluation: Evaluation, *, beta: float = 2.0, intervals: bool = False) -> Table:
    """Build a table of the pooled metrics, one per row."""
    table = Table(title=f"Evaluation, matched within {evaluation.tolerance_angstrom / 10:g} nm")
    table.add_column("metric")
    table.add_column("value", justify="right")
    bounds: dict[str, Interval] = {}
    if intervals:
        table.add_column("95% interval", justify="right")
        bounds = evaluation.intervals(beta=beta)
    best_f1, threshold = evaluation.best_f1
    # Label, value, and name of the metric whose interval is shown.
    rows = [
        ("tomograms", f"{len(evaluation.matches)}", ""),
        ("candidates", f"{evaluation.n_candidates}", ""),
        ("truth", f"{evaluation.n_truth}", ""),
        ("true positives (TP)", f"{evaluation.true_positives}", ""),
        ("false positives (FP)", f"{evaluation.false_positives}", ""),
        ("false negatives (FN)", f"{evaluation.false_negatives}", ""),
        ("precision", f"{evaluation.precision:.3f}", "precision"),
        ("recall", f"{evaluation.recall:.3f}", "recall"),
        ("F1", f"{evaluation.f1:.3f}", "f1"),
        (f"F{beta:g}", f"{evaluation.f_beta(beta):.3f}", "f_beta"),
        ("average precision", f"{evaluation.average_precision:.3f}", "average_precision"),
    ]
    at_recall = evaluation.precision_at_recall()
    if not math.isnan(at_recall):
        rows.append(("precision at recall 0.9", f"{at_recall:.3f}", ""))
    if not math.isnan(threshold):
        rows.append(("best F1 on the curve", f"{best_f1:.3f} at score {threshold:.3f}", ""))
    if evaluation.n_candidates:
        rows.append(("calibration error", f"{evaluation.calibration_error:.3f}", "calibration_error"))
    if not math.isnan(evaluation.false_positives_without_truth):
        rows.append(("FP per tomogram without T3SS", f"{evaluation.false_positives_without_truth:.2f}", ""))
    if evaluation.pairs:
        rows += [
            ("median distance", f"{evaluation.median_distance_angstrom / 10:.1f} nm", ""),
            ("median normal error", f"{evaluation.median_normal_error_degrees:.0f} degrees", ""),
            ("correct polarity", f"{100 * evaluation.polarity_right:.0f} %", ""),
        ]
    rows += [
        (escape(f"FP on {kind}"), f"{count}", "") for kind, count in evaluation.false_positive_kinds.items()
    ]
    for label, value, name in rows:
        interval = (_interval(bounds[name]) if name else "",) if intervals else ()
        table.add_row(label, value, *interval)
    return table


def tomogram_table(evaluation: Evaluation) -> Table:
    """Build a table with one row per tomogram."""
    table = Table(title="By tomogram")
    table.add_column("tomogram")
    for name in ("TP", "FP", "FN", "precision", "recall", "F1", "95% interval of F1"):
        table.add_column(name, justify="right")
    for one in evaluation.per_tomogram:
        table.add_row(
            escape(one.matches[0].name),
            f"{one.true_positives}",
            f"{one.false_positives}",
            f"{one.false_negatives}",
            f"{one.precision:.3f}",
            f"{one.recall:.3f}",
            f"{one.f1:.3f}",
            _interval(one.intervals()["f1"]),
        )
    return table


def _interval(interval: Interval) -> str:
    return f"{interval.low:.3f} to {interval.high:.3f}"


def draw_curves(evaluation: Evaluation, path: StrPath) -> None:
    """Draw the precision-recall curve and the reliability diagram as a PNG, atomically."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
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
