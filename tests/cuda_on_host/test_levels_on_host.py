"""Means of slices in slabs on a device: the CUDA source on the host against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from host_device import DEVICE, Extension

from networks import small_unet
from t3ssfast.detection.membrane_levels import MembraneLevels
from t3ssfast.detection.segment_slice import segment_on_device, slice_weights, weighted_mean
from t3ssfast.errors import ModelError
from t3ssfast.models import LoadedModel

SCHEDULES = ("forward", "reversed", "shuffled")


@pytest.fixture
def unet(on_host: Extension, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    """A segmenter on the device."""
    monkeypatch.setattr(LoadedModel, "device", DEVICE)
    return small_unet()


def expected(slices: dict[int, torch.Tensor], weights: dict[int, float]) -> np.ndarray:
    mean = weighted_mean(weights, {n: slice_.numpy() for n, slice_ in slices.items()})
    return np.rint(mean * np.float32(255)).astype(np.uint8)


# Three multiprocessors hold 12 blocks at a time: of the largest slice, each takes several groups of pixels.
@pytest.mark.parametrize("order", SCHEDULES)
@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (32, 32), (33, 31), (190, 221)])
def test_slabs_equal_numpy(on_host: Extension, unet: LoadedModel, order: str, shape: tuple[int, int]) -> None:
    on_host.schedule(order)
    values = [torch.from_numpy(v) for v in np.random.default_rng(0).random((4, *shape), np.float32)]
    ties = torch.arange(values[0].numel()) % 511 / 510
    for value in values[:3]:
        value.view(-1)[::3] = ties[::3]
    # Six slices of which every second is segmented, and the last.
    segmented = dict(zip((0, 2, 4, 5), values, strict=True))
    out = np.full((6, *shape), 77, np.uint8)
    with on_host.device() as device:
        copies = {n: value.clone() for n, value in segmented.items()}
        levels = MembraneLevels(out, unet)
        for z in range(6):
            levels.write(z, slice_weights(z, 6, 2), copies)
        found = levels.finish()
    # They are copied from pinned memory, beside the next slab's work.
    assert (out == 77).all()
    assert device.pinned == 1
    for z in range(6):
        np.testing.assert_array_equal(found[z], expected(segmented, slice_weights(z, 6, 2)))
    assert len(on_host.counts()) == 6


@pytest.mark.parametrize("order", SCHEDULES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_reported(
    on_host: Extension, unet: LoadedModel, order: str, value: float
) -> None:
    on_host.schedule(order)
    with on_host.device():
        slices = {n: torch.zeros(170, 181) for n in range(3)}
        slices[2][169, 180] = value
        slices[2][168, 3] = value
        levels = MembraneLevels(np.zeros((2, 170, 181), np.uint8), unet)
        levels.write(0, slice_weights(1, 3), slices)
        levels.write(1, slice_weights(0, 3), slices)
        with pytest.raises(ModelError, match="answers NaN"):
            levels.finish()


def test_slices_of_the_segmenter_stay_on_the_device(on_host: Extension, unet: LoadedModel) -> None:
    """The kernel reads what the segmenter wrote to the device's memory."""
    image = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 40, 53)).astype(np.float32))
    out = np.zeros((1, 40, 53), np.uint8)
    with on_host.device() as device:
        found = segment_on_device(image.clone(), unet, engine="torch", max_tile=512)
        assert found.untyped_storage().data_ptr() in device.memory
        levels = MembraneLevels(out, unet)
        # Of memory that PyTorch writes, the checker only knows that it was allocated: give it a copy.
        levels.write(0, {0: 1.0}, {0: found.clone()})
        brought = levels.finish()
    np.testing.assert_array_equal(brought[0], expected({0: found}, {0: 1.0}))
    assert len(np.unique(brought)) > 1
