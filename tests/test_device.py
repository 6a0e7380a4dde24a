"""The CUDA half against the CPU half: order statistics and copies to the bit, sums within rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import t3ssfast as t3
from t3ssfast.models import LeNet

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

ORDER = ("min", "max", "median", "q05", "q25", "q95")
MOMENTS = ("mean", "std", "variance", "skewness", "kurtosis", "energy")


def images(kind: str, shape: tuple[int, ...]) -> torch.Tensor:
    rng = np.random.default_rng(3)
    values = rng.normal(size=shape)
    if kind == "ties":
        values = np.round(values * 3)
    elif kind == "offset":
        values += 1e5
    elif kind == "hot":
        values.reshape(-1)[rng.integers(0, values.size, 5)] = 1e5
    elif kind == "constant":
        values[:] = 2.5
    return torch.from_numpy(values.astype(np.float32))


def mask_of(shape: tuple[int, ...], share: float) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(4).random(shape) < share)


@pytest.mark.parametrize("size", [1, 2, 7, 50, 64])
@pytest.mark.parametrize("normalise", [None, "zscore"])
def test_unfold_small(size: int, normalise: str | None) -> None:
    image = images("noise", (2, 70, 83))
    mask = mask_of((2, 71 - size, 84 - size), 0.1)
    expected = t3.unfold(image, size, mask=mask, normalise=normalise)
    found = t3.unfold(image.cuda(), size, mask=mask.cuda(), normalise=normalise)
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=0 if normalise is None else 1e-5)


@pytest.mark.parametrize("kind", ["noise", "ties", "offset", "hot", "constant"])
@pytest.mark.parametrize("size", [1, 3, 50])
def test_statistics_small(kind: str, size: int) -> None:
    image = images(kind, (2, 96, 101))
    for names, tolerance in ((ORDER, 0.0), (MOMENTS, 1e-5)):
        expected = t3.window_statistics(image, size, names)
        found = t3.window_statistics(image.cuda(), size, names)
        torch.testing.assert_close(
            found.cpu(), expected, rtol=tolerance, atol=tolerance, equal_nan=True, msg=f"{names} of {kind}"
        )


@pytest.mark.parametrize("share", [0.0, 0.002, 0.3])
def test_masked_statistics_small(share: float) -> None:
    image = images("noise", (3, 90, 120))
    mask = mask_of((3, 41, 71), share)
    names = (*ORDER, *MOMENTS)
    expected = t3.window_statistics(image, 50, names, mask=mask)
    found = t3.window_statistics(image.cuda(), 50, names, mask=mask.cuda())
    assert found.shape == expected.shape
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("share", [None, 0.0, 0.01, 0.5])
@pytest.mark.parametrize("plan", ["dense", "windows"])
def test_scores_small(share: float | None, plan: str) -> None:
    torch.manual_seed(1)
    model = LeNet(channels=(5, 9), hidden=(33, 21)).eval()
    image = images("noise", (2, 100, 91))
    mask = None if share is None else mask_of((2, 51, 42), share)
    expected = t3.score_windows(model, image, mask=mask, plan=plan)
    found = t3.score_windows(
        model.cuda(), image.cuda(), mask=None if mask is None else mask.cuda(), plan=plan
    )
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-4)


def test_detection_on_the_device_agrees_with_the_cpu() -> None:
    simulation = t3.simulate(seed=41, shape=(48, 224, 224))
    on_cpu = t3.detect(simulation.tomogram, device="cpu", progress=False)
    on_device = t3.detect(simulation.tomogram, device="cuda", progress=False)
    assert len(on_cpu.candidates) == len(on_device.candidates)
    np.testing.assert_allclose(on_device.candidates.centre_zyx, on_cpu.candidates.centre_zyx, atol=0.5)
