"""What the widgets Detect and Train share: a job with progress, cancelling, and fields for its options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.utils.notifications import show_error
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from t3ssfast.napari_plugin.jobs import Event, Job
from t3ssfast.napari_plugin.widgets.viewing import reporting

__all__ = ["JobPanel", "PathField"]

POLL_MS = 150
MODELS = ("segmenter", "classifier", "verifier")
DEVICES = ("auto", "cpu", "cuda")


class PathField(QWidget):
    """A field for a path, with a button that opens a dialog of a kind: "open", "save" or "folder"."""

    def __init__(self, dialog: str, placeholder: str = "") -> None:
        super().__init__()
        self._dialog = dialog
        self.edit = QLineEdit()
        self.edit.setPlaceholderText(placeholder)
        button = QPushButton("...")
        button.setFixedWidth(32)
        button.clicked.connect(self._ask)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.edit, 1)
        row.addWidget(button)

    @property
    def path(self) -> str:
        """The path, without spaces around it; "" is none."""
        return str(self.edit.text()).strip()

    def set_path(self, path: object) -> None:
        """Fill in a path."""
        self.edit.setText(str(path))

    def _ask(self) -> None:
        ask: dict[str, Callable[[], Any]] = {
            "open": lambda: QFileDialog.getOpenFileName(self)[0],
            "save": lambda: QFileDialog.getSaveFileName(self)[0],
            "folder": lambda: QFileDialog.getExistingDirectory(self),
        }
        chosen = ask[self._dialog]()
        if chosen:
            self.set_path(chosen)


class JobPanel(QWidget):
    """A widget with a form, a button that starts a job, one that cancels it, and its progress."""

    def __init__(self, napari_viewer: Any, action: str) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.job: Job | None = None
        self._box = QVBoxLayout(self)
        self.form = QFormLayout()
        self._box.addLayout(self.form)
        self.models = {name: PathField("open", "bundled") for name in MODELS}
        self.device = QComboBox()
        self.device.addItems(DEVICES)
        self.python = PathField("open", "this environment")
        self.python.setToolTip("Python of another environment with t3ssfast, for example one with CUDA")
        self.run_button = QPushButton(action)
        self.run_button.clicked.connect(reporting(self.start))
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setEnabled(False)
        self.cancel_button.clicked.connect(lambda _=False: self.cancel())
        self.progress = QProgressBar()
        self.progress.setTextVisible(True)
        self.state = QLabel()
        self.state.setTextFormat(Qt.TextFormat.PlainText)
        self.state.setWordWrap(True)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self.poll)
        # A process must not outlive the window.
        self.destroyed.connect(lambda _=None, panel=self.__dict__: _close(panel.get("job")))

    def finish_form(self) -> None:
        """Add the fields and buttons that come below those of the widget."""
        for name, field in self.models.items():
            self.form.addRow(name.capitalize(), field)
        self.form.addRow("Device", self.device)
        self.form.addRow("Python", self.python)
        buttons = QHBoxLayout()
        buttons.addWidget(self.run_button)
        buttons.addWidget(self.cancel_button)
        self._box.addLayout(buttons)
        self._box.addWidget(self.progress)
        self._box.addWidget(self.state)
        self._box.addStretch(1)

    def start(self) -> None:
        """Start the job of the form."""
        raise NotImplementedError

    def finished(self, event: Event) -> None:
        """Show the result of a job that is done."""
        raise NotImplementedError

    def advanced(self, event: Event) -> None:
        """Show what a job has done so far; by default only the progress."""

    def launch(self, task: str, options: dict[str, Any]) -> None:
        """Start a process; a job that runs is never replaced."""
        if self.job is not None and self.job.running:
            return
        models = {name: field.path for name, field in self.models.items() if field.path}
        common = {"models": models, "device": self.device.currentText()}
        self.job = Job(task, {**common, **options}, python=self.python.path)
        self.progress.setRange(0, 0)
        self.state.setText("starting ...")
        self._set_running(True)
        self._timer.start(POLL_MS)

    def cancel(self) -> None:
        """Cancel the job."""
        if self.job is not None:
            self.job.cancel()
            self.state.setText("cancelling ...")

    def poll(self) -> None:
        """Show the events of the job."""
        if self.job is None:
            return
        for event in self.job.poll():
            kind = event["event"]
            if kind == "progress":
                self.progress.setRange(0, event["total"])
                self.progress.setValue(event["done"])
                self.state.setText(f"{event['stage']}: slice {event['done']} of {event['total']}")
                self.advanced(event)
            elif kind == "log":
                self.state.setText(event["message"])
            else:
                self._ended(kind, event)

    def _ended(self, kind: str, event: Event) -> None:
        self._timer.stop()
        self._set_running(False)
        self.progress.setRange(0, 1)
        self.progress.setValue(kind == "done")
        if kind == "done":
            reporting(lambda: self.finished(event))()
        elif kind == "failed":
            self.state.setText(event["message"])
            show_error(event["message"])
        else:
            self.state.setText("cancelled; the next run with the same options resumes")

    def _set_running(self, running: bool) -> None:
        self.run_button.setEnabled(not running)
        self.cancel_button.setEnabled(running)


def _close(job: Job | None) -> None:
    if job is not None:
        job.cancel()
