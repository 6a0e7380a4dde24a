"""What the widgets do with a viewer: find layers, show results, bind keys, report errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Layer
from napari.utils.notifications import show_error

from t3ssfast.candidates import Candidates
from t3ssfast.curation.results import Results
from t3ssfast.errors import T3Error
from t3ssfast.napari_plugin.layers import (
    AXES_LAYER,
    CANDIDATES_LAYER,
    MEMBRANE_LAYER,
    METADATA_KEY,
    LayerData,
    axes_layer,
    candidate_features,
    verdict_colours,
)
from t3ssfast.napari_plugin.reader import layers_of_results
from t3ssfast.napari_plugin.sources import Source, source_of_arrays, source_of_results
from t3ssfast.tomogram import Tomogram

__all__ = [
    "add_layers",
    "bind_keys",
    "candidates_layers",
    "centre_view",
    "listed_results",
    "remove_layers_of_results",
    "reporting",
    "show_results",
    "sources_of",
    "tomogram_of",
    "update_candidates",
]

# Slices before and behind the one in the middle that are averaged: single ones show noise.
AVERAGED_NM = 12.0


def reporting(action: Callable[..., Any]) -> Callable[..., None]:
    """Return the action as a slot: it takes what a signal sends, and shows errors of t3ssfast in napari."""

    def slot(*_: object) -> None:
        try:
            action()
        except (T3Error, OSError) as error:
            show_error(str(error))

    return slot


def add_layers(viewer: Any, layers: Iterable[LayerData]) -> list[Any]:
    """Add layers that a reader made, and show a mean of slices."""
    added = [viewer.add_layer(Layer.create(*layer)) for layer in layers]
    average_slices(viewer)
    return added


def average_slices(viewer: Any) -> None:
    """Show the mean of a few slices instead of one."""
    if viewer.dims.ndim == 3:
        viewer.dims.margin_left = viewer.dims.margin_right = (AVERAGED_NM / 2, 0, 0)


def candidates_layers(viewer: Any) -> list[Any]:
    """Return the Points layers that hold candidates of t3ssfast."""
    return [layer for layer in viewer.layers if "candidates" in layer.metadata.get(METADATA_KEY, {})]


def listed_results(viewer: Any) -> list[Results]:
    """Return the results that the layers are from, also those of tomograms that are not shown."""
    for layer in reversed(candidates_layers(viewer)):
        results: list[Results] = layer.metadata[METADATA_KEY].get("results", [])
        if results:
            return results
    return []


def tomogram_of(viewer: Any) -> tuple[Tomogram, dict[str, Any]] | None:
    """Return the tomogram of the selected Image layer, or of the last one, and its metadata."""
    images = [layer for layer in viewer.layers if type(layer).__name__ == "Image" and layer.data.ndim == 3]
    active = viewer.layers.selection.active
    if active in images:
        images.append(active)
    if not images:
        return None
    layer = images[-1]
    metadata = dict(layer.metadata.get(METADATA_KEY, {}))
    if "tomogram" not in metadata:
        # Opened by another reader; the scale is the voxel size in nm, as for all layers of this plugin.
        metadata["tomogram"] = Tomogram(layer.data, float(layer.scale[-1]) * 10, layer.name)
    return metadata.pop("tomogram"), metadata


def sources_of(viewer: Any) -> list[Source]:
    """Return a source for each tomogram of the results that are open, or one made of the layers."""
    results = listed_results(viewer)
    if results:
        return [source_of_results(one) for one in results]
    by_name: dict[str, Candidates] = {}
    for layer in candidates_layers(viewer):
        candidates: Candidates = layer.metadata[METADATA_KEY]["candidates"]
        by_name[candidates.tomogram_name] = candidates
    found = tomogram_of(viewer)
    tomogram, metadata = found if found is not None else (None, {})
    masks = [layer.data for layer in viewer.layers if type(layer).__name__ == "Labels"]
    membrane = masks[-1] if masks else None
    sources = []
    for name, candidates in by_name.items():
        # A file that does not name its tomogram is taken for the one that is open.
        is_open = tomogram is not None and (len(by_name) == 1 or tomogram.name == name)
        given = (tomogram, membrane) if is_open else (None, None)
        sources.append(source_of_arrays(candidates, *given, metadata.get("contrast_sign", 1)))
    return sources


def remove_layers_of_results(viewer: Any, name: str) -> None:
    """Remove the layers of the results that are shown, and the image of a tomogram."""
    names = {CANDIDATES_LAYER, MEMBRANE_LAYER, AXES_LAYER}
    for layer in list(viewer.layers):
        metadata = layer.metadata.get(METADATA_KEY, {})
        is_image = "tomogram" in metadata and ("contrast_sign" in metadata or layer.name == name)
        if layer.name in names or is_image:
            viewer.layers.remove(layer)


def show_results(viewer: Any, results: Results, all_results: Sequence[Results]) -> None:
    """Show one tomogram of several instead of the one that is shown."""
    remove_layers_of_results(viewer, results.name)
    add_layers(viewer, layers_of_results(results, all_results))


def update_candidates(viewer: Any, layer: Any, candidates: Candidates, shown: npt.NDArray[np.bool_]) -> None:
    """Show verdicts and added picks in a Points layer, and the axes of the picks."""
    if len(layer.data) != len(candidates):
        axes = layer.name.replace(CANDIDATES_LAYER, AXES_LAYER)
        if axes in viewer.layers:
            viewer.layers[axes].data = axes_layer(candidates)[0]
        layer.data = candidates.centre_zyx.copy()
        layer.size = np.full(len(candidates), layer.current_size if not len(layer.size) else layer.size.max())
    layer.features = candidate_features(candidates)
    layer.border_color = verdict_colours(candidates.label)
    layer.shown = shown
    layer.metadata[METADATA_KEY]["candidates"] = candidates


def centre_view(viewer: Any, layer: Any, centre_zyx: npt.ArrayLike) -> None:
    """Move the slice and the camera to a position in voxels of a layer."""
    world = np.asarray(layer.data_to_world(np.asarray(centre_zyx, float)))
    viewer.dims.set_point(range(len(world)), world)
    camera = getattr(viewer, "scene", viewer).camera
    camera.center = tuple(world)


def bind_keys(viewer: Any, layers: Sequence[Any], keys: dict[str, Callable[[], None]]) -> None:
    """Bind keys on the viewer and on layers, whose own keys (A selects all points) would come first."""
    for key, action in keys.items():

        def press(_: Any, action: Callable[[], None] = action) -> None:
            action()

        for target in (viewer, *layers):
            target.bind_key(key, press, overwrite=True)
