"""Sample data: a simulated minicell with its T3SS."""

from __future__ import annotations

from dataclasses import replace

from t3ssfast.napari_plugin.layers import (
    LayerData,
    axes_layer,
    candidates_layer,
    image_layer,
    membrane_layer,
)

__all__ = ["simulated_minicell"]

# Ten T3SS, simulated in a second or two.
NAME = "minicell"
SEED, SHAPE, VOXEL_SIZE_ANGSTROM = 1, (64, 224, 224), 13.6


def simulated_minicell() -> list[LayerData]:
    """Simulate a small tomogram; its membrane and T3SS are the true ones."""
    from t3ssfast.simulation.simulate import simulate

    simulation = simulate(SEED, SHAPE, VOXEL_SIZE_ANGSTROM)
    truth = replace(simulation.truth, tomogram_name=NAME)
    return [
        image_layer(replace(simulation.tomogram, name=NAME)),
        membrane_layer(simulation.membrane, VOXEL_SIZE_ANGSTROM),
        candidates_layer(truth),
        axes_layer(truth),
    ]
