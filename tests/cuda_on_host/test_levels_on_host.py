"""Averages of neighbouring slices in slabs on a device: the CUDA source on the host against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from host_device import DEVICE, Extension

from networks import small_unet
from t3ssfast.detection.membrane_levels import MembraneLevels
from t3ssfast.detection.segment_slice import average_slices, segment_on_device
from t3ssfast.errors import ModelError
from t3ssfast.models import LoadedModel

SCHEDULES = ("forward", "reversed", "shuffled")


@pytest.fixture
def unet(on_host: Extension, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    """A segmenter on the device."""
    monkeypatch.setattr(LoadedModel, "device", DEVICE)
    return small_unet()


def expected(slices: list[torch.Tensor]) -> np.ndarray:
    below, middle, above = (slice_.numpy() for slice_ in slices)
    return np.rint(average_slices(below, middle, above) * np.float32(255)).astype(np.uint8)


# Three multiprocessors hold 12 blocks at a time: of the largest slice, each takes several groups of pixels.
@pytest.mark.parametrize("order", SCHEDULES)
@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (32, 32), (33, 31), (190, 221)])
def test_slabs_equal_numpy(on_host: Extension, unet: LoadedModel, order: str, shape: tuple[int, int]) -> None:
    on_host.schedule(order)
    values = [torch.from_numpy(v) for v in np.random.default_rng(0).random((4, *shape), np.float32)]
    ties = torch.arange(values[0].numel()) % 511 / 510
    for value in values[:3]:
        value.view(-1)[::3] = ties[::3]
    out = np.full((2, *shape), 77, np.uint8)
    with on_host.device():
        slices = [value.clone() for value in values]
        levels = MembraneLevels(out, unet)
        for k in range(2):
            levels.write(k, (slices[k], slices[k + 1], slices[k + 2]))
        assert (out == 77).all()
        levels.finish()
    for k in range(2):
        np.testing.assert_array_equal(out[k], expected(values[k : k + 3]))
    assert len(on_host.counts()) == 2


@pytest.mark.parametrize("order", SCHEDULES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_reported(
    on_host: Extension, unet: LoadedModel, order: str, value: float
) -> None:
    on_host.schedule(order)
    with on_host.device():
        slices = [torch.zeros(170, 181) for _ in range(3)]
        slices[2][169, 180] = value
        slices[2][168, 3] = value
        levels = MembraneLevels(np.zeros((2, 170, 181), np.uint8), unet)
        levels.write(0, (slices[0], slices[1], slices[2]))
        levels.write(1, (slices[0], slices[0], slices[1]))
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
        copy = found.clone()
        levels.write(0, (copy, copy, copy))
        levels.finish()
    np.testing.assert_array_equal(out[0], expected([found, found, found]))
    assert len(np.unique(out)) > 1
