"""`classify_slab`: the classifier on the voxels of a search region."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lenets import lenet, noise
from t3ssfast.detection.classify import classify_slab
from t3ssfast.detection.lattice import interpolate_scores, lattice_around
from t3ssfast.errors import InputError, ModelError
from t3ssfast.models import LoadedModel, ModelMetadata

TOLERANCE = 1e-4


def loaded(
    module: nn.Module,
    classes: tuple[str, ...] = ("background", "t3ss"),
    output: str = "logits",
    window_px: int | None = 20,
) -> LoadedModel:
    metadata = ModelMetadata("classifier", window_px=window_px, classes=classes, output=output)
    return LoadedModel(module, metadata, "", "classifier.pt")


def test_every_voxel_can_be_a_centre() -> None:
    model = lenet()
    slab = noise(3, 33, 40).numpy()
    region = np.zeros(slab.shape, np.uint8)
    region[[0, 2], ::4, ::3] = 1
    region[2, -1, -1] = region[0, 0, 0] = 1
    index, probability = classify_slab(slab, region, loaded(model))
    assert np.array_equal(index, np.flatnonzero(region))
    for i, p in list(zip(index, probability, strict=True))[::7]:
        z, y, x = np.unravel_index(i, slab.shape)
        padded = np.pad(slab[z], 20, mode="reflect")
        window = padded[y + 10 : y + 30, x + 10 : x + 30]  # y - n//2 ... y - n//2 + n - 1
        expected = torch.softmax(model(torch.from_numpy(window)[None, None]), 1)[0, 1].item()
        assert p == pytest.approx(expected, abs=TOLERANCE)


def test_slabs_do_not_change_probabilities() -> None:
    model = loaded(lenet(21, (3, 5)), window_px=21)
    slab = noise(4, 30, 41).numpy()
    region = (noise(4, 30, 41, seed=5) > 1).numpy().astype(np.uint8)
    index, probability = classify_slab(slab, region, model)
    parts = [classify_slab(slab[z : z + 1], region[z : z + 1], model) for z in range(4)]
    assert np.array_equal(probability, np.concatenate([p for _, p in parts]))
    assert np.array_equal(index, np.concatenate([i + z * 30 * 41 for z, (i, _) in enumerate(parts)]))


@pytest.mark.parametrize("shape", [(2, 30, 41), (1, 33, 34)])
@pytest.mark.parametrize("stride", [2, 3, 5])
def test_scores_between_classified_windows_are_interpolated(stride: int, shape: tuple[int, ...]) -> None:
    model, slab = loaded(lenet(21, (3, 5)), window_px=21), noise(*shape).numpy()
    region = (noise(*shape, seed=5) > 0.5).numpy().astype(np.uint8)
    _, every = classify_slab(slab, np.ones_like(region), model)
    exact = every.reshape(shape)
    lattice = lattice_around(region, stride)
    at_points = classify_slab(slab, lattice, model, stride=stride)
    index, probability = interpolate_scores(at_points, lattice, region, stride)
    assert np.array_equal(index, np.flatnonzero(region))
    # A point of the lattice is classified where its square touches the region; the last takes the rest.
    centre = [np.arange(stride // 2, length, stride) for length in shape[1:]]
    for i, found in list(zip(index, probability, strict=True))[::13]:
        z, *voxel = np.unravel_index(i, shape)
        total = weights = 0.0
        for y, row in enumerate(centre[0]):
            for x, column in enumerate(centre[1]):
                end = [
                    shape[a + 1] if k == len(centre[a]) - 1 else (k + 1) * stride
                    for a, k in enumerate((y, x))
                ]
                if region[z, y * stride : end[0], x * stride : end[1]].any():
                    share = _share(voxel[0], row, centre[0], stride) * _share(
                        voxel[1], column, centre[1], stride
                    )
                    total += share * exact[z, row, column]
                    weights += share
        assert found == pytest.approx(total / weights, abs=TOLERANCE)
    with pytest.raises(InputError, match=f"of one shape, but for the stride of {stride}"):
        classify_slab(slab, region, model, stride=stride)


def _share(voxel: int, point: int, points: np.ndarray, stride: int) -> float:
    """Weight of a lattice point for a voxel along one axis; beyond the outermost point, that one's is 1."""
    inside = min(max(voxel, points[0]), points[-1])
    return max(0.0, 1 - abs(inside - point) / stride)


def test_probability_follows_the_metadata() -> None:
    slab, region = noise(1, 25, 25).numpy(), np.ones((1, 25, 25), np.uint8)
    logits = lenet(classes=3)
    _, background = classify_slab(slab, region, loaded(logits, classes=("t3ss", "background", "motor")))
    index, _ = classify_slab(slab, np.zeros_like(region), loaded(logits, classes=("t3ss", "b", "c")))
    assert len(index) == 0
    softmax = nn.Sequential(logits, nn.Softmax(1)).eval()
    _, same = classify_slab(
        slab, region, loaded(softmax, classes=("t3ss", "background", "motor"), output="probabilities")
    )
    np.testing.assert_allclose(background, same, atol=TOLERANCE)
    _, one_class = classify_slab(slab, region, loaded(lenet(classes=1)))
    assert ((one_class > 0) & (one_class < 1)).all()


def test_unusable_scores_are_refused() -> None:
    slab, region = noise(1, 25, 25).numpy(), np.ones((1, 25, 25), np.uint8)
    broken = lenet()
    with torch.no_grad():
        broken[-1].bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="NaN on 625 of 625 windows"):
        classify_slab(slab, region, loaded(broken))
    with pytest.raises(ModelError, match="2 values for a window, and its metadata name 3"):
        classify_slab(slab, region, loaded(lenet(), classes=("a", "b", "c")))
    scaled = lenet()
    scaled[-1].weight.data.mul_(1e3)
    with pytest.raises(ModelError, match="say that it answers probabilities"):
        classify_slab(slab, region, loaded(scaled, output="probabilities"))
    with pytest.raises(ModelError, match="no window size"):
        classify_slab(slab, region, loaded(lenet(), window_px=None))
    with pytest.raises(InputError, match="of one shape"):
        classify_slab(slab, region[:, 1:], loaded(lenet()))
