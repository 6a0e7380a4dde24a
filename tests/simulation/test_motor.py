"""The simulated flagellar motor: sizes, missing parts and architectures."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from t3ssfast.simulation.motor import MotorArchitecture, flagellar_motor, variety_stream
from t3ssfast.simulation.simulate import simulate

SMALL = {"cell_radius_nm": 70, "ribosomes_per_cubic_um": 0, "tilt_step_degrees": 15, "edge_margin_nm": 0}


def grid(max_r: float, phi: float) -> list[np.ndarray]:
    s, r = np.meshgrid(np.arange(-70, 260, 2.5), np.linspace(0, max_r, 80), indexing="ij")
    return [a.astype(np.float32) for a in (s, r, np.full_like(s, phi))]


def test_architectures_are_drawn_from_their_ranges() -> None:
    assert MotorArchitecture.draw(np.random.default_rng(0), 0.0) == MotorArchitecture()
    drawn = [MotorArchitecture.draw(np.random.default_rng(seed), 1.0) for seed in range(300)]
    for item in fields(MotorArchitecture):
        if item.metadata:
            values = np.array([getattr(one, item.name) for one in drawn])
            assert item.metadata["low"] <= values.min() < values.max() <= item.metadata["high"]
    diameters = [one.diameter_nm for one in drawn]
    assert 34 <= min(diameters) < 36
    assert 55 < max(diameters) <= 57
    assert {one.stators for one in drawn} == {0, *range(8, 19)}
    assert 0.1 < np.mean([one.sheathed for one in drawn]) < 0.3


@pytest.mark.parametrize("variety", [0.0, 1.0])
def test_density_stays_within_the_extent(variety: float) -> None:
    s, r, phi = grid(120, 0.4)
    for seed in range(20):
        mean = MotorArchitecture.draw(np.random.default_rng(seed), variety)
        particle = flagellar_motor(np.random.default_rng(seed), 27.0, mean)
        density, filled = particle.density(s, r, phi)
        low, high, radius = particle.extent_nm
        outside = (s < low) | (s > high) | (r > radius)
        assert not density[outside].any()
        assert not filled[outside].any()
        assert filled.min() >= 0
        assert 0.4 < filled.max() <= 1


def test_motors_without_hook_keep_the_other_draws() -> None:
    mean = MotorArchitecture()
    for seed in range(8):
        with_hook, without = np.random.default_rng(seed), np.random.default_rng(seed)
        tall = flagellar_motor(with_hook, 27.0, mean)
        short = flagellar_motor(without, 27.0, replace(mean, hookless_fraction=1.0))
        assert with_hook.random() == without.random()
        assert tall.extent_nm[1] > 27 / 2 + 45
        assert short.extent_nm[1] < 27 / 2 + 8


def test_stators_and_sheath() -> None:
    phi = np.linspace(0, 2 * np.pi, 720, endpoint=False, dtype=np.float32)
    mean = MotorArchitecture(stators=11, stator_fraction=1.0, sheathed=True)
    particle = flagellar_motor(np.random.default_rng(0), 27.0, mean)
    ring = particle.density(np.full_like(phi, -10), np.full_like(phi, 19), phi)[0] > 0.2
    assert np.count_nonzero(ring & ~np.roll(ring, 1)) == 11
    r = np.linspace(0, 30, 301, dtype=np.float32)
    across = particle.density(np.full_like(r, 18), r, np.zeros_like(r))[0]
    assert (across[r > mean.hook + 3] > 0.5).any(), "a layer around the hook"


def test_variety_changes_motors_only() -> None:
    made = [
        simulate(1, (64, 96, 96), t3ss_per_cell=3, flagellar_motors_per_cell=3, motor_variety=v, **SMALL)
        for v in (0.0, 1.0)
    ]
    plain, varied = made
    np.testing.assert_array_equal(plain.truth.centre_zyx, varied.truth.centre_zyx)
    assert not np.array_equal(plain.tomogram.data, varied.tomogram.data)
    for simulation in made:
        assert set(simulation.particles.kind) == {"t3ss", "flagellar_motor"}
        assert len(simulation.particles) == len(simulation.truth) + len(simulation.motors)
    rng = np.random.default_rng(3)
    variety_stream(rng)
    assert rng.random() == np.random.default_rng(3).random()
    assert variety_stream(rng).random() != rng.random()
