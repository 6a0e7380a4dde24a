"""The simulator: what it promises about geometry, truth, imaging and its own repeatability."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from scipy import ndimage

from t3ssfast.errors import ConfigError, VoxelSizeError
from t3ssfast.simulation.geometry import irregular_surface
from t3ssfast.simulation.imaging import Projector, contrast_transfer, electron_wavelength, tilt_angles
from t3ssfast.simulation.particles import Architecture, t3ss
from t3ssfast.simulation.simulate import Physics, Simulation, random_physics, simulate

SHAPE = (48, 112, 112)
VOXEL = 13.6
SMALL = {
    "cell_radius_nm": 70.0,
    "cell_elongation": 1.1,
    "cell_flattening": 0.8,
    "small_vesicles": 0,
    "tilt_step_degrees": 6.0,
    "edge_margin_nm": 6.0,
}
EMPTY_CELL = {
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


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(3, SHAPE, VOXEL, keep_density=True, **SMALL)


def test_result_is_what_the_contract_says(simulation: Simulation) -> None:
    data = simulation.tomogram.data
    assert data.shape == simulation.membrane.shape == simulation.labels.shape == SHAPE
    assert data.dtype == np.float32
    assert data.flags.c_contiguous
    assert np.isfinite(data).all()
    assert abs(data.mean()) < 1e-3
    assert 0.9 < data.std() < 1.3
    assert simulation.tomogram.voxel_size_angstrom == VOXEL
    assert simulation.membrane.dtype == simulation.labels.dtype == np.uint8
    assert set(np.unique(simulation.membrane)) == {0, 1}
    assert simulation.labels.max() < len(simulation.label_names)
    assert simulation.truth.tomogram_shape == SHAPE
    assert simulation.truth.tomogram_name == simulation.distractors.tomogram_name == simulation.tomogram.name


def test_same_arguments_give_same_bits(simulation: Simulation) -> None:
    again = simulate(3, SHAPE, VOXEL, **SMALL)
    np.testing.assert_array_equal(again.tomogram.data, simulation.tomogram.data)
    np.testing.assert_array_equal(again.truth.centre_zyx, simulation.truth.centre_zyx)
    np.testing.assert_array_equal(again.labels, simulation.labels)
    assert again.density is None


def test_the_microscope_leaves_the_specimen_alone(simulation: Simulation) -> None:
    other = simulate(3, SHAPE, VOXEL, keep_density=True, defocus_um=3.0, noise_scale=2.0, **SMALL)
    np.testing.assert_array_equal(other.density, simulation.density)
    assert not np.array_equal(other.tomogram.data, simulation.tomogram.data)
    assert not np.array_equal(simulate(4, SHAPE, VOXEL, **SMALL).membrane, simulation.membrane)


def test_truth_lies_inside_by_its_margin_and_apart(simulation: Simulation) -> None:
    centre = simulation.truth.centre_zyx
    assert len(centre) >= 3
    assert set(simulation.truth.kind) == {"t3ss"}
    assert "t3ss" not in set(simulation.distractors.kind)
    margin = simulation.parameters.edge_margin_nm * 10 / VOXEL
    assert (centre >= margin - 1e-3).all()
    assert (centre <= np.array(SHAPE) - 1 - margin + 1e-3).all()
    apart = np.linalg.norm(centre[:, None] - centre[None], axis=-1) * VOXEL / 10
    assert apart[np.triu_indices(len(centre), 1)].min() >= simulation.parameters.spacing_nm - 1e-3


def test_truth_lies_half_way_between_the_membranes(simulation: Simulation) -> None:
    outside_mask = ndimage.distance_transform_edt(simulation.membrane == 0) * VOXEL / 10
    truth = simulation.truth
    voxel = np.round(truth.centre_zyx).astype(int)
    expected = simulation.parameters.membrane_gap_nm / 2 - simulation.parameters.membrane_half_thickness_nm
    assert np.abs(outside_mask[tuple(voxel.T)] - expected).max() < 2.0
    # One membrane lies that far ahead along the normal, the other that far behind.
    half = simulation.parameters.membrane_gap_nm / 2 * 10 / VOXEL
    for sign in (-1, 1):
        spot = truth.centre_zyx + sign * half * truth.normal_zyx
        seen = ((spot > 1) & (spot < np.array(SHAPE) - 2)).all(axis=1)
        near = ndimage.map_coordinates(outside_mask, spot[seen].T, order=1)
        assert seen.any()
        assert near.max() < 2.0


def test_normals_point_out_of_the_cell() -> None:
    made = simulate(
        5,
        SHAPE,
        VOXEL,
        **(SMALL | EMPTY_CELL | {"t3ss_per_cell": 6, "cytoplasm_density": 0.5}),
        keep_density=True,
    )
    assert made.density is not None
    ahead, behind = (
        ndimage.map_coordinates(
            made.density, (made.truth.centre_zyx + step * made.truth.normal_zyx).T, order=1, mode="nearest"
        )
        for step in (28.0, -28.0)
    )
    assert np.median(behind - ahead) > 0.2


def test_labels_mark_the_particle_at_its_place(simulation: Simulation) -> None:
    names = simulation.label_names
    for found in (simulation.truth, simulation.distractors):
        for centre, kind in zip(found.centre_zyx, found.kind, strict=True):
            voxel = np.round(centre).astype(int)
            near = tuple(slice(max(v - 12, 0), v + 13) for v in voxel)
            assert (simulation.labels[near] == names.index(str(kind))).any()


def test_membrane_mask_is_as_thick_as_asked() -> None:
    thin, thick = (
        simulate(1, SHAPE, VOXEL, membrane_half_thickness_nm=half, **(SMALL | EMPTY_CELL))
        for half in (1.75, 3.5)
    )
    assert thick.membrane.sum() / thin.membrane.sum() == pytest.approx(2, rel=0.05)
    assert (thick.membrane >= thin.membrane).all()
    assert (thick.labels[thick.membrane > 0] == thick.label_names.index("membrane")).all()


def test_head_groups_lie_within_the_mask() -> None:
    made = simulate(
        1, SHAPE, VOXEL, keep_density=True, membrane_half_thickness_nm=3.5, **(SMALL | EMPTY_CELL)
    )
    assert made.density is not None
    assert (made.membrane[made.density > 0.5] == 1).all()


def test_membranes_and_machines_are_dark(simulation: Simulation) -> None:
    quiet = simulate(
        3, SHAPE, VOXEL, **(SMALL | {"noise_scale": 0.2, "intensity_ramp": 0.0, "corner_darkening": 0.0})
    )
    data, names = quiet.tomogram.data, quiet.label_names
    solvent = data[quiet.labels == 0].mean()
    assert data[quiet.membrane > 0].mean() < solvent - 0.2
    assert data[quiet.labels == names.index("t3ss")].mean() < solvent - 0.2
    assert data[quiet.labels == names.index("gold_bead")].mean() < solvent - 1


def test_without_t3ss() -> None:
    bare = simulate(0, (32, 64, 64), VOXEL, **(SMALL | {"t3ss_per_cell": 0}))
    assert len(bare.truth) == 0
    assert bare.membrane.any()
    assert len(bare.distractors) > 0


def test_vesicles_only_and_nothing_at_all() -> None:
    vesicles = simulate(0, (32, 64, 64), VOXEL, cells=0, large_vesicles=2, large_vesicle_radius_nm=30)
    assert len(vesicles.truth) == 0
    assert vesicles.membrane.any()
    nothing = simulate(
        0, (16, 16, 16), VOXEL, **(EMPTY_CELL | {"cells": 0, "small_vesicles": 0, "noise_scale": 0})
    )
    assert len(nothing.truth) == len(nothing.distractors) == 0
    assert not nothing.labels.any()
    assert np.isfinite(nothing.tomogram.data).all()


@pytest.mark.parametrize("voxel_size", [7.5, 20.0])
def test_other_voxel_sizes_keep_lengths(voxel_size: float) -> None:
    made = simulate(
        2,
        (48, 96, 96),
        voxel_size,
        keep_density=True,
        **(SMALL | EMPTY_CELL | {"t3ss_per_cell": 2, "spacing_nm": 30.0}),
    )
    outside_mask = ndimage.distance_transform_edt(made.membrane == 0) * voxel_size / 10
    voxel = np.round(made.truth.centre_zyx).astype(int)
    assert len(voxel)
    expected = made.parameters.membrane_gap_nm / 2 - made.parameters.membrane_half_thickness_nm
    assert np.abs(outside_mask[tuple(voxel.T)] - expected).max() < 2.5


def test_t3ss_has_the_published_sizes() -> None:
    particle = t3ss(
        np.random.default_rng(0), 27.0, size_spread=0.0, needle_length_nm=50.0, with_platform=True
    )

    def profile(s: float) -> np.ndarray:
        r = np.linspace(0, 25, 501, dtype=np.float32)
        return particle.shape(np.full_like(r, s), r, np.full_like(r, np.pi / 6))[0]

    def width(s: float) -> float:
        return float(2 * 25 / 500 * np.flatnonzero(profile(s) > 0.5).max())

    assert 25 < width(-14) < 27.5
    assert 12 < width(0) < 15
    assert 15 < width(12) < 18
    assert 7 < width(40) < 8
    assert profile(40)[0] == 0, "the needle is hollow"
    s = np.linspace(-60, 120, 1801, dtype=np.float32)
    wall = particle.shape(s, np.full_like(s, 2.5), np.zeros_like(s))[0] > 0.5
    assert abs(s[wall].max() - (27 / 2 + 2.5 + 50)) < 1
    height = [s[particle.shape(s, np.full_like(s, r), np.zeros_like(s))[0] > 0.9] for r in (6.0, 9.0)]
    assert 30 < np.max(height[0]) - np.min(height[1]) < 34
    phi = np.linspace(0, 2 * np.pi, 720, endpoint=False, dtype=np.float32)
    ring = particle.shape(np.full_like(phi, -33), np.full_like(phi, 16), phi)[0] > 0.5
    assert np.count_nonzero(np.diff(np.r_[ring, ring[:1]].astype(int)) == 1) == 6


def test_needle_and_platform_can_be_missing() -> None:
    bare = t3ss(np.random.default_rng(0), 27.0, size_spread=0.0, needle_length_nm=0.0, with_platform=False)
    s = np.linspace(-60, 60, 601, dtype=np.float32)
    for r in (2.5, 16.0):
        found = bare.shape(s, np.full_like(s, r), np.zeros_like(s))[0] > 0.3
        assert not found[(s > 18) | (s < -24)].any()


def test_parts_vary_in_density_and_nothing_else_does() -> None:
    s, r = np.meshgrid(np.linspace(-60, 60, 121), np.linspace(0, 30, 61), indexing="ij")
    grid = [a.astype(np.float32) for a in (s, r, np.zeros_like(s))]
    made = []
    for spread in (0.0, 0.3):
        rng = np.random.default_rng(4)
        particle = t3ss(
            rng, 27.0, size_spread=0.05, density_spread=spread, needle_length_nm=50.0, with_platform=True
        )
        made.append((*particle.shape(*grid), particle.reach_nm, rng.random()))
    (plain, filled, reach, after), (varied, varied_filled, varied_reach, varied_after) = made
    assert (reach, after) == (varied_reach, varied_after)
    np.testing.assert_array_equal(plain > 0, varied > 0)
    ratio = varied[plain > 0.5] / plain[plain > 0.5]
    assert ratio.min() < 0.9
    assert ratio.max() > 1.05
    assert varied_filled.min() >= 0
    assert max(filled.max(), varied_filled.max()) == 1


def test_architectures_go_from_the_published_one_to_anywhere_in_their_ranges() -> None:
    assert Architecture.draw(np.random.default_rng(0), 0.0) == Architecture()
    drawn = [Architecture.draw(np.random.default_rng(k), 1.0) for k in range(400)]
    near = [Architecture.draw(np.random.default_rng(k), 0.25) for k in range(400)]
    for item in fields(Architecture):
        low, high = item.metadata["low"], item.metadata["high"]
        values = np.array([getattr(one, item.name) for one in drawn])
        assert low <= values.min() < values.max() <= high
        assert np.ptp(values) > 0.9 * (high - low)
        assert np.ptp([getattr(one, item.name) for one in near]) < 0.26 * (high - low)
        assert low <= item.default <= high


def test_any_architecture_stays_within_its_reach() -> None:
    s, r = np.meshgrid(np.linspace(-90, 90, 181), np.linspace(0, 45, 91), indexing="ij")
    grid = [a.astype(np.float32) for a in (s, r, np.full_like(s, 0.4))]
    for k in range(40):
        rng = np.random.default_rng(k)
        like = Architecture.draw(rng.spawn(1)[0], 1.0)
        particle = t3ss(
            rng, 27.0, size_spread=0.0, needle_length_nm=40.0, with_platform=k % 2 == 0, like=like
        )
        density, filled = particle.shape(*grid)
        low, high, reach = particle.reach_nm
        outside = (s < low) | (s > high) | (r > reach)
        assert not density[outside].any()
        assert not filled[outside].any()
        assert filled.min() >= 0
        assert filled.max() <= 1
        # Labels are given where more than 0.4 of what was there is replaced.
        assert (filled > 0.4).any()


def test_what_a_species_is_like_changes_its_particles_alone() -> None:
    plain, varied = (simulate(3, (48, 128, 128), t3ss_variety=variety) for variety in (0.0, 1.0))
    assert len(plain.truth)
    np.testing.assert_array_equal(plain.truth.centre_zyx, varied.truth.centre_zyx)
    np.testing.assert_array_equal(plain.distractors.centre_zyx, varied.distractors.centre_zyx)
    np.testing.assert_array_equal(plain.membrane, varied.membrane)
    assert np.abs(plain.tomogram.data - varied.tomogram.data).max() > 0.1


def test_surface_distance_matches_a_sphere() -> None:
    surface = irregular_surface(
        np.random.default_rng(0), [40.0, 60.0, 60.0], [30.0, 30.0, 30.0], roughness=0.0
    )
    found = surface.signed_distance((60, 90, 90), 1.36, pad_nm=10, reach_nm=15)
    assert found is not None
    box, distance = found
    z, y, x = np.mgrid[box] * 1.36
    exact = np.sqrt((z - 40) ** 2 + (y - 60) ** 2 + (x - 60) ** 2) - 30
    near = np.abs(exact) < 12
    assert np.abs(distance - exact)[near].max() < 0.25
    assert (np.sign(distance) == np.sign(exact))[np.abs(exact) > 1].all()
    assert surface.points(3.0).area.sum() == pytest.approx(4 * np.pi * 30**2, rel=1e-3)
    far = irregular_surface(np.random.default_rng(0), [400.0, 60.0, 60.0], [30.0, 30.0, 30.0], roughness=0.0)
    assert far.signed_distance((60, 90, 90), 1.36, pad_nm=10, reach_nm=15) is None


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("angle", [-60.0, 0.0, 17.0, 60.0])
def test_back_projection_is_the_transpose_of_projection(mirrored: bool, angle: float) -> None:
    rng = np.random.default_rng(1)
    projector = Projector((9, 20, 7), mirrored=mirrored)
    volume = rng.standard_normal((9, 20, 7)).astype(np.float32)
    image = rng.standard_normal((20, 7)).astype(np.float32)
    there = float(np.vdot(projector.project(volume, angle).astype(np.float64), image))
    back = float(np.vdot(volume.astype(np.float64), projector.back_project(image[None], angle)))
    assert there == pytest.approx(back, rel=1e-4, abs=1e-3)


def test_projection_sums_along_the_beam() -> None:
    flat = np.ones((8, 40, 3), np.float32)
    for angle in (0.0, 30.0, 60.0):
        image = Projector(flat.shape, mirrored=True).project(flat, angle)
        assert image.mean() == pytest.approx(8 / np.cos(np.radians(angle)), rel=0.02)
    image = Projector((8, 40, 3), mirrored=False).project(
        np.arange(8 * 40 * 3, dtype=np.float32).reshape(8, 40, 3), 0.0
    )
    np.testing.assert_allclose(image, np.arange(960).reshape(8, 40, 3).sum(axis=0), rtol=1e-6)


def test_reconstruction_puts_a_point_where_it_was() -> None:
    """A lone dense bead comes back at its own voxel: no half-voxel shift, no flipped axis."""
    from t3ssfast.simulation.imaging import reconstruct, tilt_series

    density = np.zeros((33, 64, 48), np.float32)
    density[20, 15, 30] = 1
    physics = Physics(
        noise_scale=0,
        shift_error_nm=0,
        angle_error_degrees=0,
        defocus_um=1.0,
        defocus_spread_um=0,
        phase_flip=True,
    )
    images, angles = tilt_series(density, 1.36, physics, np.random.default_rng(0))
    volume = reconstruct(images, angles, 33, physics)
    assert np.unravel_index(volume.argmin(), volume.shape) == (20, 15, 30)


def test_contrast_transfer() -> None:
    assert electron_wavelength(300) == pytest.approx(0.01969, abs=1e-5)
    frequency = np.linspace(0, 1 / 27.2, 200)
    physics = Physics(amplitude_contrast=0.1, b_factor=0)
    transfer = contrast_transfer(frequency, 50_000, physics)
    assert transfer[0] == pytest.approx(-0.2)
    assert (transfer[:150] < 0).all(), "protein is dark in underfocus"
    first_zero = frequency[np.flatnonzero(transfer > 0)[0]]
    assert first_zero == pytest.approx(1 / np.sqrt(0.01969 * 50_000), rel=0.05)
    flipped = contrast_transfer(
        frequency, 50_000, Physics(amplitude_contrast=0.1, b_factor=0, phase_flip=True)
    )
    np.testing.assert_allclose(flipped, -np.abs(transfer))


def test_tilt_angles_are_symmetric_about_the_pretilt() -> None:
    angles = tilt_angles(Physics(tilt_range_degrees=50, tilt_step_degrees=3, pretilt_degrees=4))
    assert angles.mean() == pytest.approx(4)
    assert np.diff(angles) == pytest.approx(3)
    assert 47 < (angles.max() - angles.min()) / 2 <= 50


@pytest.mark.parametrize(
    "options", [{"sirt_iterations": 10}, {"deconvolution": 0.6}, {"carbon_film_nm": 12.0}]
)
def test_other_imaging_changes_the_tomogram(options: dict[str, float]) -> None:
    plain = simulate(6, (24, 48, 48), VOXEL, **SMALL)
    other = simulate(6, (24, 48, 48), VOXEL, **(SMALL | options))
    assert np.isfinite(other.tomogram.data).all()
    assert not np.array_equal(plain.tomogram.data, other.tomogram.data)


@pytest.mark.parametrize("seed", range(40))
def test_random_physics_stays_within_bounds_and_repeats(seed: int) -> None:
    physics = random_physics(seed)
    assert physics == random_physics(np.random.default_rng(seed))
    assert Physics.from_dict(physics.to_dict()) == physics


def test_random_physics_covers_all_kinds_of_specimen() -> None:
    drawn = [random_physics(seed) for seed in range(100)]
    with_t3ss = sum(p.cells > 0 and p.t3ss_per_cell > 0 for p in drawn)
    assert 60 < with_t3ss < 90
    assert any(p.cells > 0 and p.t3ss_per_cell == 0 for p in drawn)
    assert any(p.cells == 0 and p.large_vesicles > 0 for p in drawn)
    assert random_physics(0, cells=2, defocus_um=4).defocus_um == 4.0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_tomograms_can_be_made(seed: int) -> None:
    made = simulate(seed, (24, 56, 56), VOXEL, **random_physics(seed, tilt_step_degrees=6).to_dict())
    assert np.isfinite(made.tomogram.data).all()


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
def test_bad_parameters_are_named(arguments: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        simulate(**arguments)  # type: ignore[arg-type]
    message = str(error.value)
    assert all(word in message for word in words), message
    assert message.endswith(".")
    assert "\n" not in message


def test_bad_voxel_size() -> None:
    with pytest.raises(VoxelSizeError):
        simulate(0, SHAPE, 0.0)


def test_every_parameter_is_described() -> None:
    for item in fields(Physics):
        assert item.name in (Physics.__doc__ or "")
