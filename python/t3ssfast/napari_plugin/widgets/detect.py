"""The widget Detect: a detection in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QDoubleSpinBox, QLabel

from t3ssfast.curation.results import find_results
from t3ssfast.errors import InputError
from t3ssfast.io import results_folder, write
from t3ssfast.napari_plugin.jobs import Event
from t3ssfast.napari_plugin.preview import Preview
from t3ssfast.napari_plugin.reader import layers_of_results
from t3ssfast.napari_plugin.session import file_name
from t3ssfast.napari_plugin.widgets.job_panel import JobPanel, PathField
from t3ssfast.napari_plugin.widgets.viewing import add_layers, remove_layers_of_results, tomogram_of
from t3ssfast.runtime.counted import counted

__all__ = ["Detect"]

SO_FAR = "membrane so far", "windows so far"
# A preview reads and draws the whole membrane.
SLICES_BETWEEN_PREVIEWS = 8
MARK_NM = 25.0


class Detect(JobPanel):
    """Find T3SS in the selected tomogram; the membrane and high scores appear slab by slab."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer, "Detect")
        self._preview: Preview | None = None
        self._previewed = -1
        self.out = PathField("folder", "folder for the results")
        self.threshold = QDoubleSpinBox()
        self.threshold.setRange(0.01, 1)
        self.threshold.setSingleStep(0.05)
        self.threshold.setValue(0.5)
        self.form.addRow(QLabel("Searches the selected Image layer."))
        self.form.addRow("Results", self.out)
        self.form.addRow("Score from", self.threshold)
        self.finish_form()

    def start(self) -> None:
        """Start the detection.

        Raises
        ------
        InputError, OutputError
            If there is no tomogram or no folder for the results.
        """
        found = tomogram_of(self.viewer)
        if found is None:
            raise InputError("There is no Image layer of three axes; open a tomogram.")
        if not self.out.path:
            raise InputError("Results: there is no folder; choose one for the results.")
        tomogram, metadata = found
        # Memory-mapped files know their name.
        folder, path = Path(self.out.path), metadata.get("path") or getattr(tomogram.data, "filename", None)
        if path is None:
            # A simulation, or the layer of another reader.
            path = results_folder(folder) / f"{file_name(tomogram.name)}.mrc"
            write(path, tomogram.data, tomogram.voxel_size_angstrom)
        self._preview, self._previewed = Preview(folder, tomogram), -1
        options = {
            "tomogram": str(path),
            "out": str(folder),
            "threshold": self.threshold.value(),
            "voxel_size_angstrom": tomogram.voxel_size_angstrom,
        }
        self.launch("detect", options)

    def advanced(self, event: Event) -> None:
        """Show the slabs that are finished."""
        step = event["done"] // SLICES_BETWEEN_PREVIEWS
        if self._preview is None or step == self._previewed:
            return
        self._previewed = step
        if self._preview.update(event["total"]) and self._preview.membrane is not None:
            scale = (self._preview.voxel_size_angstrom / 10,) * 3
            options: dict[str, Any] = {"scale": scale, "units": ("nm",) * 3}
            self._replace(SO_FAR[0], "add_labels", self._preview.membrane.copy(), opacity=0.3, **options)
            if len(self._preview.centre_zyx):
                options |= {"size": MARK_NM / scale[0], "symbol": "ring", "projection_mode": "all"}
                self._replace(
                    SO_FAR[1], "add_points", self._preview.centre_zyx, face_color="yellow", **options
                )

    def _replace(self, name: str, method: str, data: Any, **options: Any) -> None:
        if name in self.viewer.layers:
            self.viewer.layers[name].data = data
        else:
            active = self.viewer.layers.selection.active
            getattr(self.viewer, method)(data, name=name, **options)
            self.viewer.layers.selection.active = active

    def finished(self, event: Event) -> None:
        """Show the results instead of the preview."""
        for name in SO_FAR:
            if name in self.viewer.layers:
                self.viewer.layers.remove(name)
        results = find_results(event["folder"])
        remove_layers_of_results(self.viewer, results[0].name)
        add_layers(self.viewer, layers_of_results(results[0], results))
        count = counted(event["candidates"], "candidate")
        known = "" if event["new"] else " (from an earlier run with the same options)"
        self.state.setText(f"{count} in {event['folder']}{known}; open Curate, or press Refresh there.")
