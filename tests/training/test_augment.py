"""Augmentation of training images."""

from __future__ import annotations

import numpy as np
import torch

from t3ssfast.training.augment import Placement, augment_values, random_placement, sample
from t3ssfast.training.options import AugmentOptions

NO_CHANGE = AugmentOptions(
    scale=(1, 1), free_rotation=0, spectrum=0, blur_px=0, noise=0, contrast=(1, 1), shift=0, gamma=(1, 1)
)


def test_sampling_is_exact_on_whole_pixels():
    image = torch.randn(2, 1, 21, 30)
    straight = [Placement((10.0, 15.0), np.eye(2))] * 2
    cut = sample(image, straight, 8, middle=4)
    torch.testing.assert_close(cut, image[:, :, 6:14, 11:19], atol=2e-5, rtol=0)
    quarter = [Placement((10.0, 15.0), np.array([[0.0, -1.0], [1.0, 0.0]]))] * 2
    rotated = sample(image, quarter, 9)
    torch.testing.assert_close(rotated, torch.rot90(image[:, :, 6:15, 11:20], -1, (2, 3)), atol=2e-5, rtol=0)


def test_values_depend_on_the_generator_alone_and_are_clipped():
    images = torch.randn(16, 1, 24, 24)
    options = AugmentOptions()
    augmented = augment_values(images, np.random.default_rng(1), options)
    assert torch.equal(augmented, augment_values(images, np.random.default_rng(1), options))
    assert not torch.equal(augmented, augment_values(images, np.random.default_rng(2), options))
    assert torch.isfinite(augmented).all()
    assert augmented.abs().max() <= options.clip
    assert torch.isfinite(augment_values(torch.zeros(2, 1, 8, 8), np.random.default_rng(0), options)).all()


def test_images_stay_the_same_without_augmentation():
    images = torch.randn(16, 1, 24, 24)
    torch.testing.assert_close(augment_values(images, np.random.default_rng(0), NO_CHANGE), images)
    placement = random_placement(np.random.default_rng(0), (1.0, 2.0), NO_CHANGE)
    np.testing.assert_allclose(abs(np.linalg.det(placement.matrix)), 1.0)
    np.testing.assert_allclose(np.sort(abs(placement.matrix).ravel()), [0, 0, 1, 1], atol=1e-12)
