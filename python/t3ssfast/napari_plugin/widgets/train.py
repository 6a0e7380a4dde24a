"""The widget Train: the verifier is fine-tuned on verdicts in a process of its own."""

from __future__ import annotations

from typing import Any

from qtpy.QtGui import QFontDatabase
from qtpy.QtWidgets import QLabel, QSpinBox

from t3ssfast.errors import InputError
from t3ssfast.napari_plugin.compare import comparison_text, rank
from t3ssfast.napari_plugin.jobs import Event
from t3ssfast.napari_plugin.widgets.job_panel import JobPanel, PathField
from t3ssfast.napari_plugin.widgets.viewing import listed_results

__all__ = ["Train"]

# Steps of `t3ssfast train tune`.
STEPS = 60


class Train(JobPanel):
    """Fine-tune the verifier on the verdicts on the open results, and compare it with the one before."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer, "Fine-tune")
        self.verdicts = PathField("open", "curation file (saved in Curate)")
        self.out = PathField("save", "tuned.pt")
        self.steps = QSpinBox()
        self.steps.setRange(1, 10_000)
        self.steps.setValue(STEPS)
        self.form.addRow(QLabel("Learns from the verdicts on the results that are open."))
        self.form.addRow("Verdicts", self.verdicts)
        self.form.addRow("New verifier", self.out)
        self.form.addRow("Steps", self.steps)
        self.finish_form()
        self.state.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))

    def start(self) -> None:
        """Start the training.

        Raises
        ------
        InputError
            If no results are open, or a path is missing.
        """
        results = listed_results(self.viewer)
        if not results:
            raise InputError("There are no results; open the folder of results that the verdicts are about.")
        if not self.verdicts.path or not self.out.path:
            raise InputError("Verdicts, New verifier: a path is missing; give both files.")
        options = {
            "folders": [str(one.folder) for one in results],
            "verdicts": self.verdicts.path,
            "out": self.out.path,
            "steps": self.steps.value(),
        }
        self.launch("train", options)

    def finished(self, event: Event) -> None:
        """Show the comparison."""
        before = rank(event["labels"], event["before"])
        after = rank(event["labels"], event["after"], event["after_uncalibrated"])
        text = comparison_text(before, after, folds=event["folds"], verdicts=event["verdicts"])
        self.state.setText(f"{text}\n\nwrote {event['model']}; give it to Detect as Verifier.")
