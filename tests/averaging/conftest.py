"""Simulated particles and their average, computed once."""

from __future__ import annotations

import pytest

from simulated_particles import BOX, CONFIG, perturbed, simulate_particles
from t3ssfast.averaging.average import average


@pytest.fixture(scope="session")
def simulated():
    return simulate_particles()


@pytest.fixture(scope="session")
def result(simulated):
    return average(simulated.tomograms, perturbed(simulated.truth), BOX, symmetry="C6", config=CONFIG)
