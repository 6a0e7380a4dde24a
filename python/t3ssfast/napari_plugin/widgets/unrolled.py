"""The widget Unrolled membrane: the surroundings of a cell's membrane laid flat, with candidates as marks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from qtpy.QtCore import QPointF, Qt, Signal
from qtpy.QtGui import QColor, QImage, QMouseEvent, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import (
    QDoubleSpinBox,
    QGridLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from t3ssfast.candidates import Candidates
from t3ssfast.errors import InputError
from t3ssfast.napari_plugin.layers import METADATA_KEY, VERDICT_COLOURS
from t3ssfast.napari_plugin.unroll import INNER_NM, OUTER_NM, Unrolled, unroll
from t3ssfast.napari_plugin.widgets.viewing import candidates_layers, centre_view, reporting, sources_of
from t3ssfast.runtime.counted import counted

__all__ = ["UnrolledMembrane"]

WIDTH_NM, STEP_NM = 500.0, 2.5
THICKNESS_NM = 12.0
# A mark of the diameter of a base and its surroundings; those of candidates out of the layer are faint.
MARK_NM = 40.0
NEAR_NM = 25.0
OUTSIDE = 96
CLIPPED_PERCENT = 0.7


class Mark(NamedTuple):
    """A ring on the map, at a row and a column."""

    row: float
    column: float
    colour: str
    opacity: float
    width: float


class UnrolledMembrane(QWidget):
    """Unroll the membrane around the selected candidate, or around the middle of the view."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.block: Unrolled | None = None
        box = QVBoxLayout(self)
        grid = QGridLayout()
        self.width_nm = QDoubleSpinBox()
        self.width_nm.setRange(100, 2000)
        self.width_nm.setSingleStep(100)
        self.width_nm.setValue(WIDTH_NM)
        self.width_nm.setSuffix(" nm")
        button = QPushButton("Unroll around the selected candidate")
        button.clicked.connect(reporting(self.unroll))
        grid.addWidget(QLabel("Width"), 0, 0)
        grid.addWidget(self.width_nm, 0, 1)
        grid.addWidget(button, 1, 0, 1, 2)
        box.addLayout(grid)
        self.map = Map()
        self.map.chosen.connect(self.go_to)
        box.addWidget(self.map, 1)
        self.height_nm = QSlider(Qt.Orientation.Horizontal)
        self.height_nm.setRange(int(-INNER_NM), int(OUTER_NM))
        self.height_nm.valueChanged.connect(lambda _: self.refresh())
        box.addWidget(self.height_nm)
        self.state = QLabel("Select a candidate, or move the slice to a membrane, and unroll.")
        self.state.setTextFormat(Qt.TextFormat.PlainText)
        self.state.setWordWrap(True)
        box.addWidget(self.state)

    def unroll(self) -> None:
        """Unroll the membrane around the selected candidate, or nearest to the middle of the view.

        Raises
        ------
        InputError, ReadError
            If there is no tomogram or no membrane.
        """
        layer, candidates = self._candidates()
        source = next((one for one in sources_of(self.viewer) if one.name == candidates.tomogram_name), None)
        if source is None:
            raise InputError("There is no tomogram with candidates; open a folder of results.")
        selected = sorted(layer.selected_data)
        if selected:
            point = candidates.centre_zyx[selected[0]]
        else:
            point = np.asarray(layer.world_to_data(np.asarray(self.viewer.dims.point)))[-3:]
            camera = getattr(self.viewer, "scene", self.viewer).camera
            point[1:] = np.asarray(layer.world_to_data(np.asarray(camera.center)))[-2:]
        self.block = unroll(
            source.tomogram, source.membrane, point, width_nm=self.width_nm.value(), step_nm=STEP_NM
        )
        self._sign = source.contrast_sign
        self.refresh()

    def _candidates(self) -> tuple[Any, Candidates]:
        layers = candidates_layers(self.viewer)
        if not layers:
            raise InputError("There are no candidates; open a folder of results.")
        return layers[-1], layers[-1].metadata[METADATA_KEY]["candidates"]

    def refresh(self) -> None:
        """Draw the layer at the height of the slider, and the candidates."""
        if self.block is None:
            return
        layer, candidates = self._candidates()
        height = float(self.height_nm.value())
        marks = []
        places = self.block.to_map(candidates.centre_zyx)
        for row, (place, shown) in enumerate(zip(places, layer.shown, strict=True)):
            if shown and np.isfinite(place[0]):
                colour = VERDICT_COLOURS[str(candidates.label[row])]
                opacity = 0.35 if abs(place[0] - height) > NEAR_NM else 1.0
                width = 2.5 if row in layer.selected_data else 1.2
                marks.append(Mark(float(place[1]), float(place[2]), colour, opacity, width))
        image = self.block.mean_of_layers(height, THICKNESS_NM)
        self.map.show_map(_grey(image * self._sign), marks, MARK_NM / 2 / self.block.step_nm)
        side = (
            "outside of the cell" if height > 0 else "inside of the cell" if height < 0 else "on the membrane"
        )
        self.state.setText(
            f"{abs(height):.0f} nm {side}; {len(marks)} of {counted(len(candidates), 'candidate')}. "
            "Click to go to a place."
        )

    def go_to(self, row: float, column: float) -> None:
        """Move the viewer to the place of a pixel, and select the candidate there."""
        if self.block is None:
            return
        position = self.block.to_tomogram(float(self.height_nm.value()), row, column)
        if position is None:
            return
        layer, candidates = self._candidates()
        places = self.block.to_map(candidates.centre_zyx)
        distance = np.hypot(places[:, 1] - row, places[:, 2] - column) * self.block.step_nm
        if np.isfinite(distance).any() and np.nanmin(distance) < MARK_NM / 2:
            nearest = int(np.nanargmin(distance))
            layer.selected_data = {nearest}
            position = candidates.centre_zyx[nearest]
        centre_view(self.viewer, layer, position)


class Map(QWidget):
    """A square image with rings on it; it sends the row and column of a click as `chosen`."""

    chosen = Signal(float, float)

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumSize(320, 320)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self._image: QImage | None = None
        self._marks: list[Mark] = []
        self._radius = 1.0

    def show_map(self, image: Any, marks: list[Mark], radius: float) -> None:
        """Show a (v, u) uint8 image with marks of a radius in its pixels."""
        data = np.ascontiguousarray(image)
        height, width = data.shape
        self._image = QImage(data.data, width, height, width, QImage.Format.Format_Grayscale8).copy()
        self._marks, self._radius = marks, radius
        self.update()

    def _scale(self) -> tuple[float, float, float]:
        """Return screen pixels per pixel of the image, and the left and upper margin."""
        assert self._image is not None
        scale = min(self.width() / self._image.width(), self.height() / self._image.height())
        left = (self.width() - scale * self._image.width()) / 2
        return scale, left, (self.height() - scale * self._image.height()) / 2

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw the image and the marks."""
        if self._image is None:
            return
        scale, left, top = self._scale()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.translate(left, top)
        painter.scale(scale, scale)
        painter.drawImage(0, 0, self._image)
        for mark in self._marks:
            pen = QPen(QColor(mark.colour))
            pen.setWidthF(mark.width)
            painter.setOpacity(mark.opacity)
            painter.setPen(pen)
            painter.drawEllipse(QPointF(mark.column + 0.5, mark.row + 0.5), self._radius, self._radius)
        painter.end()

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Send the place of a click."""
        if self._image is None or event is None:
            return
        scale, left, top = self._scale()
        place = event.position() if hasattr(event, "position") else event.localPos()
        self.chosen.emit((place.y() - top) / scale - 0.5, (place.x() - left) / scale - 0.5)


def _grey(image: Any) -> Any:
    """Return an image as uint8 grey values; what is not known is grey."""
    known = np.isfinite(image)
    if not known.any():
        return np.full(image.shape, OUTSIDE, np.uint8)
    low, high = np.percentile(image[known], [CLIPPED_PERCENT, 100 - CLIPPED_PERCENT])
    scaled = np.clip((np.where(known, image, low) - low) / max(high - low, 1e-9) * 255, 0, 255)
    return np.where(known, scaled, OUTSIDE).astype(np.uint8)
