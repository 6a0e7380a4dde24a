"""The simulated T3SS: published sizes, missing parts, spreads and architectures."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from t3ssfast.simulation.parameters import Physics
from t3ssfast.simulation.particles import Particle
from t3ssfast.simulation.t3ss import Architecture, t3ss

PHYSICS = Physics(t3ss_size_spread=0.0)


def t3ss_without_spread(
    mean: Architecture | None = None, *, needle_length_nm: float = 50.0, with_platform: bool = True
) -> Particle:
    return t3ss(
        np.random.default_rng(0),
        PHYSICS,
        mean or Architecture(),
        needle_length_nm=needle_length_nm,
        with_platform=with_platform,
    )


def grid(max_s: float, max_r: float, phi: float) -> list[np.ndarray]:
    s, r = np.meshgrid(np.arange(-max_s, max_s + 1), np.linspace(0, max_r, 91), indexing="ij")
    return [a.astype(np.float32) for a in (s, r, np.full_like(s, phi))]


def test_published_sizes() -> None:
    particle = t3ss_without_spread()
    r = np.linspace(0, 25, 501, dtype=np.float32)
    s = np.linspace(-60, 120, 1801, dtype=np.float32)

    def across(height: float) -> np.ndarray:
        return particle.density(np.full_like(r, height), r, np.full_like(r, np.pi / 6))[0]

    def along(radius: float) -> np.ndarray:
        return particle.density(s, np.full_like(s, radius), np.zeros_like(s))[0]

    for height, low, high in ((-14, 25, 27.5), (0, 12, 15), (12, 15, 18), (40, 7, 8)):
        assert low < 2 * r[across(height) > 0.5].max() < high
    assert across(40)[0] == 0, "the needle is hollow"
    assert abs(s[along(2.5) > 0.5].max() - (PHYSICS.membrane_gap_nm / 2 + 2.5 + 50)) < 1
    assert 30 < s[along(6.0) > 0.9].max() - s[along(9.0) > 0.9].min() < 34
    phi = np.linspace(0, 2 * np.pi, 720, endpoint=False, dtype=np.float32)
    ring = particle.density(np.full_like(phi, -33), np.full_like(phi, 16), phi)[0] > 0.5
    assert np.count_nonzero(ring & ~np.roll(ring, 1)) == 6, "six pods"


def test_needle_and_platform_can_be_missing() -> None:
    bare = t3ss_without_spread(needle_length_nm=0.0, with_platform=False)
    s = np.linspace(-60, 60, 601, dtype=np.float32)
    for r in (2.5, 16.0):
        found = bare.density(s, np.full_like(s, r), np.zeros_like(s))[0] > 0.3
        assert not found[(s > 18) | (s < -24)].any()


def test_density_spread_changes_densities_only() -> None:
    made = []
    for spread in (0.0, 0.3):
        rng = np.random.default_rng(4)
        physics = Physics(t3ss_size_spread=0.05, t3ss_density_spread=spread)
        particle = t3ss(rng, physics, Architecture(), needle_length_nm=50.0)
        made.append((*particle.density(*grid(60, 30, 0.0)), particle.extent_nm, rng.random()))
    (plain, filled, *rest), (varied, varied_filled, *varied_rest) = made
    assert rest == varied_rest
    np.testing.assert_array_equal(plain > 0, varied > 0)
    ratio = varied[plain > 0.5] / plain[plain > 0.5]
    assert ratio.min() < 0.9
    assert ratio.max() > 1.05
    assert varied_filled.min() >= 0
    assert max(filled.max(), varied_filled.max()) == 1


def test_architectures_are_drawn_from_their_ranges() -> None:
    assert Architecture.draw(np.random.default_rng(0), 0.0) == Architecture()
    drawn = {
        variety: [Architecture.draw(np.random.default_rng(seed), variety) for seed in range(400)]
        for variety in (0.25, 1.0)
    }
    for item in fields(Architecture):
        low, high = item.metadata["low"], item.metadata["high"]
        values = np.array([getattr(one, item.name) for one in drawn[1.0]])
        assert low <= values.min() < values.max() <= high
        assert np.ptp(values) > 0.9 * (high - low)
        assert np.ptp([getattr(one, item.name) for one in drawn[0.25]]) < 0.26 * (high - low)
        assert low <= item.default <= high


@pytest.mark.parametrize("with_platform", [False, True])
def test_density_stays_within_the_extent(with_platform: bool) -> None:
    s, r, phi = grid(90, 45, 0.4)
    for seed in range(20):
        architecture = Architecture.draw(np.random.default_rng(seed), 1.0)
        particle = t3ss_without_spread(architecture, needle_length_nm=40.0, with_platform=with_platform)
        density, filled = particle.density(s, r, phi)
        low, high, radius = particle.extent_nm
        outside = (s < low) | (s > high) | (r > radius)
        assert not density[outside].any()
        assert not filled[outside].any()
        assert filled.min() >= 0
        assert 0.4 < filled.max() <= 1, "labels need 0.4"
