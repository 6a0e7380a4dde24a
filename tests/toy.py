"""A toy world for tests of the pipeline: a ring-shaped cell with dark particles, and hand-made models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import t3ssfast as t3
from t3ssfast.candidates import Candidates
from t3ssfast.models import VERIFIER_ANSWERS, AxialNet, ModelMetadata, save_model
from t3ssfast.tomogram import Tomogram

Models = dict[str, Path]

VOXEL = 13.6
# Voxels from the axis of the cell to its inner membrane, the middle of its periplasm and its outer membrane.
INNER, MIDDLE, OUTER = 26.0, 36.0, 46.0


class ToySegmenter(nn.Module):
    """Membrane where the 3 x 3 mean is dark."""

    def __init__(self, gain: float = 4.0, level: float = -1.6) -> None:
        super().__init__()
        self.blur = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.gain, self.level = gain, level

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * (self.level - self.blur(x))


def toy_classifier(level: float = 1.9, window: int = 50) -> nn.Module:
    """A LeNet-like chain whose answer grows with the darkness of the central 16 x 16 voxels."""
    side = ((window - 4) // 2 - 4) // 2
    model = nn.Sequential(
        nn.Conv2d(1, 1, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(1, 1, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(side * side, 2),
        nn.ReLU(),
        nn.Linear(2, 2),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model[0].weight.fill_(-1 / 25)
        model[3].weight.fill_(1 / 25)
        model[7].weight[0, (side // 2) * side + side // 2] = 1.0
        model[9].weight[1, 0] = 6.0
        model[9].bias[1] = -6.0 * level
    return model.eval()


def save_toy_models(folder: Path, **classifier_metadata: object) -> tuple[Path, Path]:
    """Save both as model files; returns segmenter, classifier."""
    segmenter, classifier = folder / "segmenter.pt", folder / "classifier.pt"
    save_model(ToySegmenter(), segmenter, ModelMetadata("segmenter", voxel_size_angstrom=VOXEL))
    metadata = {
        "voxel_size_angstrom": VOXEL,
        "window_px": 50,
        "window_nm": 68.0,
        "classes": ("background", "t3ss"),
        **classifier_metadata,
    }
    save_model(toy_classifier(), classifier, ModelMetadata("classifier", **metadata))  # type: ignore[arg-type]
    return segmenter, classifier


def save_toy_verifier(folder: Path) -> Path:
    """Save an untrained axial network as a model file."""
    torch.manual_seed(0)
    channels, hidden, height = (2, 3, 4, 4), 8, 16
    metadata = ModelMetadata(
        "verifier",
        voxel_size_angstrom=VOXEL,
        window_px=height,
        classes=VERIFIER_ANSWERS,
        recipe={"channels": channels, "hidden": hidden},
    )
    save_model(AxialNet(channels, hidden, height), folder / "verifier.pt", metadata)
    return folder / "verifier.pt"


def toy_tomogram(
    shape: tuple[int, int, int] = (24, 120, 132),
    step: float = 1.0,
    noise: float = 1.0,
    particles: int = 3,
) -> tuple[Tomogram, Candidates, np.ndarray]:
    """A cylindrical cell along z with dark particles across its periplasm: tomogram, truth, membrane.

    `shape` is in voxels of the models' size; `step` is the voxel size relative to the models'.
    """
    rng = np.random.default_rng(0)
    centre = (np.array(shape) - 1) / 2
    size = tuple(round(n / step) for n in shape)
    axes = [(np.arange(n) - (n - 1) / 2) * step + c for n, c in zip(size, centre, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    radius = np.hypot(y - centre[1], x - centre[2])
    membrane = (np.abs(radius - INNER) < 2.6) | (np.abs(radius - OUTER) < 2.6)
    volume = rng.normal(scale=noise, size=size).astype(np.float32)
    volume[membrane] -= 3.0
    centres, normals = [], []
    for k in range(particles):
        angle = 0.4 + 2 * np.pi * k / particles
        normal = np.array([0.0, np.sin(angle), np.cos(angle)])
        zyx = centre + MIDDLE * normal
        zyx[0] = shape[0] * (0.35 + 0.15 * k)
        inside = ((z - zyx[0]) / 1.6) ** 2 + (y - zyx[1]) ** 2 + (x - zyx[2]) ** 2 < 6.5**2
        volume[inside] = -5.0
        centres.append((zyx - centre) / step + (np.array(size) - 1) / 2)
        normals.append(normal)
    truth = Candidates(
        np.array(centres).reshape(-1, 3),
        np.ones(particles),
        np.array(normals).reshape(-1, 3),
        VOXEL * step,
        size,
        "toy",
    )
    return Tomogram(volume, VOXEL * step, "toy"), truth, membrane.astype(np.uint8)


def toy_detect(tomogram: Any, models: Models, **options: Any) -> t3.Detection:
    """Detect on the CPU."""
    return t3.detect(tomogram, **{"progress": False, "device": "cpu", **models, **options})


def same_candidates(a: t3.Detection, b: t3.Detection) -> None:
    """Assert that centres, scores and poses are equal to the bit."""
    for name in ("centre_zyx", "score", "normal_zyx"):
        np.testing.assert_array_equal(getattr(a.candidates, name), getattr(b.candidates, name))
