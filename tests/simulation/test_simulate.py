"""Simulated tomograms: reproducibility, ground truth, labels, invalid arguments."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from t3ssfast.errors import ConfigError, VoxelSizeError
from t3ssfast.simulation.simulate import Simulation, random_physics, simulate

SHAPE = (48, 112, 112)
VOXEL_ANGSTROM = 13.6
SMALL_CELL = {
    "cell_radius_nm": 70.0,
    "cell_elongation": 1.1,
    "cell_flattening": 0.8,
    "small_vesicles": 0,
    "tilt_step_degrees": 6.0,
    "edge_margin_nm": 6.0,
}
EMPTY = {
    "t3ss_per_cell": 0,
    "flagellar_motors_per_cell": 0,
    "secretins_per_cell": 0,
    "docked_ribosomes_per_cell": 0,
    "inner_membrane_proteins_per_cell": 0,
    "outer_membrane_proteins_per_cell": 0,
    "ribosomes_per_cubic_um": 0,
    "outside_proteins_per_cubic_um": 0,
    "gold_beads": 0,
    "crowding_fraction": 0,
    "outside_crowding_fraction": 0,
}


def simulate_cell(seed: int, **options: object) -> Simulation:
    return simulate(seed, SHAPE, VOXEL_ANGSTROM, **(SMALL_CELL | options))


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate_cell(3, keep_density=True)


def distance_from_membrane_nm(simulation: Simulation) -> np.ndarray:
    voxel_nm = simulation.tomogram.voxel_size_angstrom / 10
    return ndimage.distance_transform_edt(simulation.membrane == 0) * voxel_nm


def test_shapes_types_and_names(simulation: Simulation) -> None:
    data = simulation.tomogram.data
    assert data.shape == simulation.membrane.shape == simulation.labels.shape == SHAPE
    assert data.dtype == np.float32
    assert data.flags.c_contiguous
    assert np.isfinite(data).all()
    assert abs(data.mean()) < 1e-3
    assert 0.9 < data.std() < 1.3
    assert simulation.tomogram.voxel_size_angstrom == VOXEL_ANGSTROM
    assert simulation.membrane.dtype == simulation.labels.dtype == np.uint8
    assert set(np.unique(simulation.membrane)) == {0, 1}
    assert simulation.labels.max() < len(simulation.label_names)
    assert simulation.truth.tomogram_shape == SHAPE
    assert simulation.truth.tomogram_name == simulation.distractors.tomogram_name == simulation.tomogram.name


def test_same_arguments_give_the_same_bits(simulation: Simulation) -> None:
    again = simulate_cell(3)
    np.testing.assert_array_equal(again.tomogram.data, simulation.tomogram.data)
    np.testing.assert_array_equal(again.truth.centre_zyx, simulation.truth.centre_zyx)
    np.testing.assert_array_equal(again.labels, simulation.labels)
    assert again.density is None
    assert not np.array_equal(simulate_cell(4).membrane, simulation.membrane)


def test_imaging_does_not_change_the_specimen(simulation: Simulation) -> None:
    other = simulate_cell(3, keep_density=True, defocus_um=3.0, noise_scale=2.0)
    np.testing.assert_array_equal(other.density, simulation.density)
    assert not np.array_equal(other.tomogram.data, simulation.tomogram.data)


def test_t3ss_keep_their_margin_and_spacing(simulation: Simulation) -> None:
    centre = simulation.truth.centre_zyx
    assert len(centre) >= 3
    assert set(simulation.truth.kind) == {"t3ss"}
    assert "t3ss" not in set(simulation.distractors.kind)
    margin = simulation.parameters.edge_margin_nm * 10 / VOXEL_ANGSTROM
    assert (centre >= margin - 1e-3).all()
    assert (centre <= np.array(SHAPE) - 1 - margin + 1e-3).all()
    distance_nm = np.linalg.norm(centre[:, None] - centre[None], axis=-1) * VOXEL_ANGSTROM / 10
    distance_nm = distance_nm[np.triu_indices(len(centre), 1)]
    assert distance_nm.min() >= simulation.parameters.spacing_nm - 1e-3


@pytest.mark.parametrize("voxel_size", [7.5, 13.6, 20.0])
def test_t3ss_lie_half_way_between_the_membranes(simulation: Simulation, voxel_size: float) -> None:
    if voxel_size != VOXEL_ANGSTROM:
        options = SMALL_CELL | EMPTY | {"t3ss_per_cell": 2, "spacing_nm": 30.0}
        simulation = simulate(2, (48, 96, 96), voxel_size, **options)
    distance, truth, parameters = (
        distance_from_membrane_nm(simulation),
        simulation.truth,
        simulation.parameters,
    )
    assert len(truth)
    expected = parameters.membrane_gap_nm / 2 - parameters.membrane_half_thickness_nm
    assert np.abs(distance[tuple(np.round(truth.centre_zyx).astype(int).T)] - expected).max() < 2.5
    # One membrane lies half the gap ahead along the normal, the other half the gap behind.
    for step in np.array([-1, 1]) * parameters.membrane_gap_nm / 2 * 10 / voxel_size:
        position = truth.centre_zyx + step * truth.normal_zyx
        inside = ((position > 1) & (position < np.array(simulation.tomogram.shape) - 2)).all(axis=1)
        assert inside.any()
        assert ndimage.map_coordinates(distance, position[inside].T, order=1).max() < 2.0


def test_normals_point_out_of_the_cell() -> None:
    made = simulate_cell(5, **(EMPTY | {"t3ss_per_cell": 6, "cytoplasm_density": 0.5}), keep_density=True)
    ahead, behind = (
        ndimage.map_coordinates(
            made.density, (made.truth.centre_zyx + step * made.truth.normal_zyx).T, order=1, mode="nearest"
        )
        for step in (28.0, -28.0)
    )
    assert np.median(behind - ahead) > 0.2


def test_particles_are_labelled_at_their_positions(simulation: Simulation) -> None:
    names = simulation.label_names
    for particles in (simulation.truth, simulation.distractors):
        for centre, kind in zip(particles.centre_zyx, particles.kind, strict=True):
            near = tuple(slice(max(i - 12, 0), i + 13) for i in np.round(centre).astype(int))
            assert (simulation.labels[near] == names.index(str(kind))).any()


def test_membrane_mask_has_the_requested_thickness() -> None:
    thin, thick = (
        simulate_cell(1, membrane_half_thickness_nm=half, keep_density=True, **EMPTY) for half in (1.75, 3.5)
    )
    assert thick.membrane.sum() / thin.membrane.sum() == pytest.approx(2, rel=0.05)
    assert (thick.membrane >= thin.membrane).all()
    assert (thick.labels[thick.membrane > 0] == thick.label_names.index("membrane")).all()
    assert (thick.membrane[thick.density > 0.5] == 1).all(), "head groups lie in the mask"


def test_membranes_and_particles_are_dark() -> None:
    quiet = simulate_cell(3, noise_scale=0.2, intensity_ramp=0.0, corner_darkening=0.0)
    data, names = quiet.tomogram.data, quiet.label_names
    solvent = data[quiet.labels == 0].mean()
    assert data[quiet.membrane > 0].mean() < solvent - 0.2
    assert data[quiet.labels == names.index("t3ss")].mean() < solvent - 0.2
    assert data[quiet.labels == names.index("gold_bead")].mean() < solvent - 1


def test_specimens_without_t3ss_without_cells_and_empty() -> None:
    bare = simulate(0, (32, 64, 64), VOXEL_ANGSTROM, **(SMALL_CELL | {"t3ss_per_cell": 0}))
    assert len(bare.truth) == 0
    assert bare.membrane.any()
    assert len(bare.distractors) > 0
    vesicles = simulate(0, (32, 64, 64), cells=0, large_vesicles=2, large_vesicle_radius_nm=30)
    assert len(vesicles.truth) == 0
    assert vesicles.membrane.any()
    empty = simulate(0, (16, 16, 16), **(EMPTY | {"cells": 0, "small_vesicles": 0, "noise_scale": 0}))
    assert len(empty.truth) == len(empty.distractors) == 0
    assert not empty.labels.any()
    assert np.isfinite(empty.tomogram.data).all()


def test_variety_changes_the_t3ss_only() -> None:
    plain, varied = (simulate(3, (48, 128, 128), t3ss_variety=variety) for variety in (0.0, 1.0))
    assert len(plain.truth)
    np.testing.assert_array_equal(plain.truth.centre_zyx, varied.truth.centre_zyx)
    np.testing.assert_array_equal(plain.distractors.centre_zyx, varied.distractors.centre_zyx)
    np.testing.assert_array_equal(plain.membrane, varied.membrane)
    assert np.abs(plain.tomogram.data - varied.tomogram.data).max() > 0.1


@pytest.mark.parametrize(
    "options", [{"sirt_iterations": 10}, {"deconvolution": 0.6}, {"carbon_film_nm": 12.0}]
)
def test_optional_imaging_changes_the_tomogram(options: dict[str, float]) -> None:
    plain, other = (
        simulate(6, (24, 48, 48), VOXEL_ANGSTROM, **(SMALL_CELL | chosen)) for chosen in ({}, options)
    )
    assert np.isfinite(other.tomogram.data).all()
    assert not np.array_equal(plain.tomogram.data, other.tomogram.data)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_physics_can_be_simulated(seed: int) -> None:
    physics = random_physics(seed, tilt_step_degrees=6).to_dict()
    assert np.isfinite(simulate(seed, (24, 56, 56), VOXEL_ANGSTROM, **physics).tomogram.data).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seed": -1}, ["seed", "-1"]),
        ({"seed": 1.5}, ["seed", "1.5"]),
        ({"shape": (64, 64)}, ["shape", "(64, 64)"]),
        ({"shape": (8, 64, 64)}, ["shape", "16"]),
        ({"shape": "big"}, ["shape", "big"]),
        ({"cells": -1}, ["cells", "-1", "0 to 20"]),
        ({"cells": 1.5}, ["cells", "1.5", "whole"]),
        ({"defocus_um": float("nan")}, ["defocus_um", "nan"]),
        ({"defocus_um": "far"}, ["defocus_um", "far"]),
        ({"phase_flip": 3}, ["phase_flip", "True or False"]),
        ({"colour": "red"}, ["colour", "cells"]),
    ],
)
def test_invalid_parameters_are_named(arguments: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        simulate(**arguments)  # type: ignore[arg-type]
    message = str(error.value)
    assert all(word in message for word in words), message
    assert message.endswith(".")
    assert "\n" not in message


def test_invalid_voxel_size() -> None:
    with pytest.raises(VoxelSizeError):
        simulate(0, SHAPE, 0.0)
