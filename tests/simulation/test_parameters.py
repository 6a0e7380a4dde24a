"""Parameters of the simulation and their random draws."""

from __future__ import annotations

from dataclasses import fields

from t3ssfast.simulation.parameters import Physics, random_physics


def test_random_physics_is_reproducible_and_valid() -> None:
    for seed in range(40):
        physics = random_physics(seed)
        assert physics == random_physics(seed) == Physics.from_dict(physics.to_dict())
        random_physics(seed, widen=2.0)
    assert random_physics(0, cells=2, defocus_um=4).defocus_um == 4.0


def test_random_physics_covers_all_kinds_of_specimen() -> None:
    drawn = [random_physics(seed) for seed in range(100)]
    assert 60 < sum(p.cells > 0 and p.t3ss_per_cell > 0 for p in drawn) < 90
    assert any(p.cells > 0 and p.t3ss_per_cell == 0 for p in drawn)
    assert any(p.cells == 0 and p.large_vesicles > 0 for p in drawn)


def test_every_parameter_is_documented() -> None:
    for item in fields(Physics):
        assert item.name in (Physics.__doc__ or "")
