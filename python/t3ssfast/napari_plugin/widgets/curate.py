"""The widget Curate: verdicts by key, gallery turned to the axes, added picks, files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from t3ssfast.candidates import LABELS
from t3ssfast.errors import InputError, T3Error
from t3ssfast.io.particles.curation import CURATION_SUFFIXES
from t3ssfast.napari_plugin.layers import METADATA_KEY
from t3ssfast.napari_plugin.session import ORDERS, SHOWN, CurationSession, Key
from t3ssfast.napari_plugin.sources import Source, axis_at
from t3ssfast.napari_plugin.thumbnails import SECTION, ThumbnailCache, framed
from t3ssfast.napari_plugin.widgets.viewing import (
    average_slices,
    bind_keys,
    candidates_layers,
    centre_view,
    reporting,
    show_results,
    sources_of,
    update_candidates,
)
from t3ssfast.runtime.counted import counted

__all__ = ["Curate"]

VERBS = dict(zip(LABELS, ("Accept (A)", "Reject (R)", "Unsure (U)"), strict=True))
GALLERY_SIZE = 24
THUMBNAIL_PIXELS = 84
VIEW_SIDE_PIXELS = 150
FILES = "Curation (*.json *.csv *.star)"


class Curate(QWidget):
    """Go through candidates by key: A accepts, R rejects, U is unsure; Z undoes, Shift-Z redoes."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.session: CurationSession | None = None
        self._sources: list[Source] = []
        self._cache = ThumbnailCache([])
        self._shown_tomogram = 0
        self._adding = False
        self._file: Path | None = None
        self._build()
        # Pictures are cut one at a time, so that keys are answered in between.
        self._cutting = QTimer(self)
        self._cutting.timeout.connect(self._cut_next)
        self._waiting: list[tuple[int, Key]] = []
        self.viewer.layers.events.inserted.connect(self._bind)
        # Keys stay bound when the widget is closed, and then do nothing.
        self.destroyed.connect(lambda _=None, state=self.__dict__: state.update(session=None))
        self.start()

    def _build(self) -> None:
        box = QVBoxLayout(self)
        self.state = QLabel()
        # Names of tomograms come from files.
        self.state.setTextFormat(Qt.TextFormat.PlainText)
        self.state.setWordWrap(True)
        box.addWidget(self.state)
        self.pictures = QLabel()
        self.pictures.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.pictures.setToolTip("Along the axis; a quarter turn on; across; mean around the axis")
        box.addWidget(self.pictures)
        box.addLayout(self._buttons())
        box.addLayout(self._criteria())
        self.gallery = QListWidget()
        self.gallery.setViewMode(QListWidget.ViewMode.IconMode)
        self.gallery.setIconSize(QSize(THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        self.gallery.setResizeMode(QListWidget.ResizeMode.Adjust)
        self.gallery.setMovement(QListWidget.Movement.Static)
        self.gallery.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.gallery.itemClicked.connect(self._chosen)
        box.addWidget(self.gallery, 1)
        files = QHBoxLayout()
        for text, action in (
            ("Open verdicts ...", self._ask_open),
            ("Save ...", self._ask_save),
            ("copick ...", self._ask_copick),
            ("Refresh", self.start),
        ):
            files.addWidget(_button(text, action))
        box.addLayout(files)

    def _buttons(self) -> QGridLayout:
        grid = QGridLayout()
        self.verdicts = {label: _button(VERBS[label], partial(self.judge, label)) for label in LABELS}
        rows = [
            list(self.verdicts.values()),
            [_button("Undo (Z)", self.undo), _button("Redo (Shift-Z)", self.redo), self._add_button()],
            [
                _button("Back (B)", partial(self.step, -1)),
                _button("Next (N)", partial(self.step, 1)),
                _button("Next tomogram (T)", partial(self.step_tomogram, 1)),
            ],
        ]
        for row, buttons in enumerate(rows):
            for column, button in enumerate(buttons):
                grid.addWidget(button, row, column)
        return grid

    def _add_button(self) -> QPushButton:
        self.add_button = _button("Add by click (P)", self.toggle_adding)
        self.add_button.setCheckable(True)
        self.add_button.setToolTip("Click on a base in the tomogram; the axis is the normal of the membrane")
        return self.add_button

    def _criteria(self) -> QGridLayout:
        grid = QGridLayout()
        self.order = QComboBox()
        self.order.addItems(ORDERS)
        self.shown = QComboBox()
        self.shown.addItems(SHOWN)
        self.threshold = QDoubleSpinBox()
        self.threshold.setRange(0, 1)
        self.threshold.setSingleStep(0.05)
        # Keys belong to the verdicts.
        for widget in (self.order, self.shown):
            widget.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        for column, (text, widget) in enumerate(
            (("Sort", self.order), ("Show", self.shown), ("Score from", self.threshold))
        ):
            grid.addWidget(QLabel(text), 0, column)
            grid.addWidget(widget, 1, column)
        self.order.currentTextChanged.connect(lambda _: self._arrange())
        self.shown.currentTextChanged.connect(lambda _: self._arrange())
        self.threshold.valueChanged.connect(lambda _: self._arrange())
        return grid

    @property
    def layer(self) -> Any:
        """The Points layer of the tomogram that is shown, or None."""
        if not self._sources:
            return None
        shown = self._sources[self._shown_tomogram]
        for layer in reversed(candidates_layers(self.viewer)):
            metadata = layer.metadata[METADATA_KEY]
            folder = None if shown.results is None else shown.results.folder
            # Results that were opened since then belong to the next session.
            if metadata["candidates"].tomogram_name == shown.name and metadata.get("folder") == folder:
                return layer
        return None

    def start(self) -> None:
        """Begin with the candidates in the viewer; verdicts that are not saved keep the session as it is."""
        if self.session is not None and self.session.unsaved:
            show_error(f"{counted(self.session.unsaved, 'verdict')} not saved; save first.")
            return
        self._sources = sources_of(self.viewer)
        self._cache = ThumbnailCache(self._sources)
        self._shown_tomogram = 0
        self._file = None
        self.session = CurationSession([one.candidates for one in self._sources]) if self._sources else None
        if self.session is not None:
            average_slices(self.viewer)
            self._bind()
            self._arrange()
        else:
            self.state.setText("There are no candidates; open a folder of results or a file of candidates.")

    def _bind(self, _: object = None) -> None:
        """Bind keys on the viewer and its layers, and clicks on the viewer."""
        if self.session is None:
            return
        keys: dict[str, Callable[[], None]] = {
            "a": partial(self.judge, "accepted"),
            "r": partial(self.judge, "rejected"),
            "u": partial(self.judge, "unsure"),
            "z": self.undo,
            "Shift-Z": self.redo,
            "n": partial(self.step, 1),
            "b": partial(self.step, -1),
            "t": partial(self.step_tomogram, 1),
            "Shift-T": partial(self.step_tomogram, -1),
            "p": self.toggle_adding,
        }
        bind_keys(self.viewer, list(self.viewer.layers), keys)
        if self._clicked not in self.viewer.mouse_drag_callbacks:
            self.viewer.mouse_drag_callbacks.append(self._clicked)

    def judge(self, label: str) -> None:
        """Give a verdict on the current candidate."""
        self._change("judge", label)

    def undo(self) -> None:
        """Take back the last verdict or pick."""
        self._change("undo")

    def redo(self) -> None:
        """Repeat what was undone."""
        self._change("redo")

    def step(self, steps: int) -> None:
        """Go to another candidate."""
        self._change("step", steps)

    def step_tomogram(self, steps: int) -> None:
        """Go to another tomogram."""
        self._change("step_tomogram", steps)

    def _change(self, method: str, *arguments: Any) -> None:
        if self.session is not None:
            getattr(self.session, method)(*arguments)
            self._keep()
            self.refresh()

    def _keep(self) -> None:
        """Write new verdicts to the file that they were saved to."""
        if self._file is not None and self.session is not None and self.session.unsaved:
            reporting(partial(self.session.save, self._file))()

    def _arrange(self) -> None:
        if self.session is not None:
            self.session.arrange(self.order.currentText(), self.shown.currentText(), self.threshold.value())
            self.refresh()

    def toggle_adding(self) -> None:
        """Switch adding by click on or off."""
        self._adding = not self._adding
        self.add_button.setChecked(self._adding)

    def _clicked(self, viewer: Any, event: Any) -> None:
        if self._adding and self.layer is not None and viewer.dims.ndisplay == 2:
            self.add_at(self.layer.world_to_data(event.position)[-3:])

    def add_at(self, centre_zyx: Any) -> None:
        """Add a pick at a position in voxels, with the axis of the membrane there."""
        if self.session is None:
            return
        tomogram = self._shown_tomogram
        source = self._sources[tomogram]
        try:
            axis = axis_at(source, centre_zyx)
        except (T3Error, OSError) as error:
            show_error(str(error))
            return
        self.session.add(tomogram, centre_zyx, axis)
        self._keep()
        self.refresh()

    def refresh(self) -> None:
        """Show the state of the session."""
        session = self.session
        if session is None:
            return
        key = session.current
        if key is not None and key[0] != self._shown_tomogram:
            self._show_tomogram(key[0])
        layer, number = self.layer, self._shown_tomogram
        if layer is not None:
            update_candidates(self.viewer, layer, session.candidates(number), session.shown(number))
            if key is not None:
                layer.selected_data = {key[1]}
                centre_view(self.viewer, layer, session.candidates(number).centre_zyx[key[1]])
        self._show_state(key)
        self._show_pictures(key)
        self._show_gallery()

    def _show_tomogram(self, number: int) -> None:
        results = [source.results for source in self._sources if source.results is not None]
        if results:
            show_results(self.viewer, results[number], results)
        self._shown_tomogram = number

    def _show_state(self, key: Key | None) -> None:
        assert self.session is not None
        counts = self.session.counts()
        totals = ", ".join(f"{counts[label]} {label}" for label in LABELS)
        totals += f", {counts['']} without a verdict"
        if self.session.unsaved:
            totals += "; not saved"
        if key is None:
            self.state.setText(f"No candidate is shown.\n{totals}")
            return
        some = self.session.candidates(key[0])
        verdict = self.session.label(key) or "no verdict"
        self.state.setText(
            f"{self.session.place + 1} of {len(self.session.order)}: {some.tomogram_name}, "
            f"score {some.score[key[1]]:.3f}, {some.kind[key[1]]}, {verdict}\n{totals}"
        )
        for label, button in self.verdicts.items():
            button.setDown(label == self.session.label(key))

    def _show_pictures(self, key: Key | None) -> None:
        assert self.session is not None
        if key is None:
            self.pictures.clear()
            return
        views = self._cache.cut(key[0], self.session.candidates(key[0]), key[1])
        label = self.session.label(key)
        tiles = [np.pad(framed(view, label), ((1, 1), (1, 1), (0, 0))) for view in views]
        top, bottom = (np.concatenate(pair, axis=1) for pair in (tiles[:2], tiles[2:]))
        self.pictures.setPixmap(_pixmap(np.concatenate([top, bottom]), 2 * VIEW_SIDE_PIXELS))
        problem = self._cache.problems.get(key[0])
        if problem:
            self.pictures.setToolTip(problem)

    def _show_gallery(self) -> None:
        """Show the page of the gallery with the current candidate."""
        assert self.session is not None
        session = self.session
        first = session.place // GALLERY_SIZE * GALLERY_SIZE
        page = session.order[first : first + GALLERY_SIZE]
        self.gallery.clear()
        for key in page:
            item = QListWidgetItem(f"{session.candidates(key[0]).score[key[1]]:.3f}")
            item.setData(Qt.ItemDataRole.UserRole, key)
            item.setSizeHint(QSize(THUMBNAIL_PIXELS + 8, THUMBNAIL_PIXELS + 24))
            self.gallery.addItem(item)
        if page:
            self.gallery.setCurrentRow(session.place - first)
        self._waiting = list(enumerate(page))
        self._cutting.start(0)

    def _cut_next(self) -> None:
        if not self._waiting or self.session is None:
            self._cutting.stop()
            return
        place, key = self._waiting.pop(0)
        view = self._cache.cut(key[0], self.session.candidates(key[0]), key[1])[SECTION]
        picture = _pixmap(framed(view, self.session.label(key)), THUMBNAIL_PIXELS)
        self.gallery.item(place).setIcon(QIcon(picture))

    def _chosen(self, item: QListWidgetItem) -> None:
        if self.session is not None:
            self.session.go_to(tuple(item.data(Qt.ItemDataRole.UserRole)))
            self.refresh()

    def _ask_open(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open verdicts", "", FILES)
        if path:
            self.open_verdicts(path)

    def _ask_save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save verdicts", "verdicts.json", FILES)
        if path:
            self.save(path)

    def _ask_copick(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Folder for copick runs with the accepted picks")
        if path:
            self.save(path)

    def open_verdicts(self, path: str | Path) -> None:
        """Put the verdicts of a file on the candidates."""
        if self.session is None:
            raise InputError("There are no candidates; open a folder of results or a file of candidates.")
        count = self.session.load(path)
        self._arrange()
        show_info(counted(count, "verdict"))

    def save(self, path: str | Path) -> None:
        """Save the verdicts; the suffix gives the format, and a folder takes copick runs."""
        if self.session is None:
            raise InputError("There are no candidates; open a folder of results or a file of candidates.")
        written = self.session.save(path)
        if Path(path).suffix.lower() in CURATION_SUFFIXES:
            self._file = Path(path)
        self._show_state(self.session.current)
        show_info(f"wrote {written[0]}" + (f" and {len(written) - 1} more" if len(written) > 1 else ""))


def _button(text: str, action: Any) -> QPushButton:
    button = QPushButton(text)
    # The focus stays in the viewer, which has the keys.
    button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    button.clicked.connect(reporting(action))
    return button


def _pixmap(picture: Any, side: int) -> QPixmap:
    """Return a (y, x, 3) uint8 picture as a pixmap of a height."""
    picture = np.ascontiguousarray(picture)
    height, width, _ = picture.shape
    image = QImage(picture.data, width, height, 3 * width, QImage.Format.Format_RGB888).copy()
    return QPixmap.fromImage(image).scaledToHeight(side, Qt.TransformationMode.SmoothTransformation)
