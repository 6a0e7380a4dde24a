"""How the classifier's negatives are drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from training_toys import CLASSIFIER

from t3ssfast.errors import ConfigError
from t3ssfast.training.data import prepare_tomograms
from t3ssfast.training.negatives import ParticleStatistics, draw_negatives, is_negative, statistics_at
from t3ssfast.training.options import ClassifierOptions, make_options

OPTIONS = replace(make_options(ClassifierOptions, CLASSIFIER), elsewhere_share=0.0)


@pytest.fixture(scope="module")
def prepared(sheets):
    return prepare_tomograms(*sheets, OPTIONS)


def test_statistics_are_those_of_the_windows_centred_at_the_positions(prepared):
    positions = np.array([[4, 30, 40], [4, 30, 40], [2, 12, 12], [4, 31, 40]])
    values = statistics_at(prepared[0], positions, (24, 11))
    assert values.shape == (14, 4)
    slices = prepared[0].prepared.slab(0, 5)
    for k, (z, y, x) in enumerate(positions):
        for row, size in ((0, 24), (7, 11)):
            first = np.array([y, x]) - size // 2
            window = slices[z, first[0] : first[0] + size, first[1] : first[1] + size].ravel()
            expected = [window.mean(), window.std(), stats.skew(window), stats.kurtosis(window)]
            expected += [window.min(), window.max(), np.median(window)]
            np.testing.assert_allclose(values[row : row + 7, k], expected, rtol=1e-3, atol=1e-4)


def test_particles_are_nearer_to_their_own_distribution(prepared):
    particles = ParticleStatistics.measure(prepared, OPTIONS)
    on_particles = np.rint(prepared[0].targets_zyx).astype(np.int64)
    background = np.array([[3, 14, 8], [6, 40, 10], [5, 60, 62], [2, 20, 60]])
    near = particles.distance(statistics_at(prepared[0], on_particles, particles.sizes))
    far = particles.distance(statistics_at(prepared[0], background, particles.sizes))
    assert near.max() < far.min()
    missing = np.full((len(particles.centre), 1), np.nan, np.float32)
    assert particles.distance(missing).tolist() == [np.inf]


def test_strata_hold_windows_like_and_unlike_the_particles(prepared):
    particles = ParticleStatistics.measure(prepared, OPTIONS)

    def distances(**shares):
        options = replace(OPTIONS, negatives_per_tomogram=200, **shares)
        drawn = draw_negatives(prepared[0], np.random.default_rng(0), options, particles)
        assert is_negative(prepared[0], drawn, options).all()
        assert len(drawn) == 200
        return particles.distance(statistics_at(prepared[0], drawn, particles.sizes))

    like = distances(like_share=1.0, unlike_share=0.0)
    unlike = distances(like_share=0.0, unlike_share=1.0)
    every = distances(like_share=0.0, unlike_share=0.0)
    assert like.max() < np.median(every) < unlike.min()


def test_negatives_are_drawn_at_random_where_no_particle_is_known(prepared):
    without = [replace(t, targets_zyx=np.zeros((0, 3))) for t in prepared]
    assert ParticleStatistics.measure(without, OPTIONS) is None
    drawn = draw_negatives(without[0], np.random.default_rng(0), OPTIONS, None)
    assert len(drawn) == OPTIONS.negatives_per_tomogram
    with pytest.raises(ConfigError, match="'statistics' or 'random'"):
        make_options(ClassifierOptions, {"negatives": "all"})
