"""The results that `record.py` writes and `test_golden.py` compares."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import t3ssfast as t3
from t3ssfast.models import load_model

GOLDEN = Path(__file__).parent
# Name, and how the tomogram is simulated: protein dark, protein light, another voxel size than the models'.
DETECTIONS: dict[str, dict[str, Any]] = {
    "dark": {"seed": 1, "shape": (40, 224, 224), "voxel_size_angstrom": 13.6},
    "light": {"seed": 4, "shape": (40, 224, 224), "voxel_size_angstrom": 13.6},
    "voxel_size_10": {"seed": 5, "shape": (56, 288, 288), "voxel_size_angstrom": 10.0},
}
FILES = ("candidates.csv", "membrane.mrc", "provenance.json")
SEGMENTER = {
    "steps": 12, "steps_per_epoch": 6, "batch": 2, "patch_px": 32, "depth": 2, "base": 4,
    "validation_patches": 2, "learning_rate": 1e-2,
}  # fmt: skip
CLASSIFIER = {
    "steps": 12, "steps_per_epoch": 6, "batch": 32, "rounds": 1, "channels": (3, 4), "hidden": (16, 8),
    "window_px": 24, "negatives_per_tomogram": 60, "mined_slices": 3, "mined_per_tomogram": 20,
    "learning_rate": 5e-3,
}  # fmt: skip
VERIFIER = {
    "steps": 12, "steps_per_epoch": 6, "batch": 8, "height_px": 16, "channels": (3, 4, 4, 4), "hidden": 8,
    "learning_rate": 1e-2, "jitter_nm": 1.0,
}  # fmt: skip


def machine() -> dict[str, str]:
    """What rounding depends on: results are equal to the last bit only where all of it is equal."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.is_file() else []
    names = ("vendor_id", "cpu family", "model", "stepping", "flags")
    described = sorted({line for line in lines if line.split(":")[0].strip() in names})
    return {
        "cpu": hashlib.sha256("\n".join(described).encode()).hexdigest()[:16]
        if lines
        else platform.machine(),
        "simd": str(t3.build_info()["simd"]),
        "openvino": str(t3.build_info()["openvino"]),
        "torch": torch.__version__.split("+")[0],
        "numpy": np.__version__,
    }


def simulated(name: str) -> tuple[t3.Simulation, t3.Tomogram]:
    """The simulation of a golden detection, and the tomogram that is searched."""
    simulation = t3.simulate(**DETECTIONS[name])
    tomogram = simulation.tomogram
    if name == "light":
        tomogram = replace(tomogram, data=-tomogram.data)
    return simulation, tomogram


def detect_into_folder(name: str, folder: Path) -> None:
    """Run a golden detection on the CPU and leave `FILES` in the folder, without timings and versions."""
    # The same engine on every processor.
    config = t3.DetectConfig(segmenter_engine="torch")
    detection = t3.detect(simulated(name)[1], device="cpu", config=config, progress=False)
    detection.save(folder)
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    for entry in ("seconds", "software"):
        del provenance[entry]
    (folder / "provenance.json").write_text(json.dumps(provenance, indent=1) + "\n", encoding="utf-8")


def summary(array: Any) -> dict[str, Any]:
    """SHA-256 of an array's bytes, and numbers that a machine with other rounding reproduces nearly."""
    values = np.ascontiguousarray(array)
    as_float = values.astype(np.float64)
    return {
        "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
        "shape": list(values.shape),
        "dtype": str(values.dtype),
        "mean": float(np.nanmean(as_float)) if values.size else 0.0,
        "std": float(np.nanstd(as_float)) if values.size else 0.0,
    }


def kernel_outputs() -> Iterator[tuple[str, Any]]:
    """Named answers of the three kernels on images that hold noise, ties, steps and an outlier."""
    rng = np.random.default_rng(7)
    stack = rng.normal(size=(2, 90, 101)).astype(np.float32)
    stack[0, 40:, 30:60] += 8.0
    stack[1, 10:40] = np.round(stack[1, 10:40] * 2) / 2
    stack[1, 70, 70] = 1e4
    mask = rng.random((2, 41, 52)) < 0.1
    names = (
        "mean",
        "std",
        "variance",
        "skewness",
        "kurtosis",
        "min",
        "max",
        "range",
        "energy",
        "median",
        "q05",
        "q95",
    )
    yield "unfold", t3.unfold(stack, 50, mask=mask)
    yield "unfold_zscore", t3.unfold(stack, 50, mask=mask, normalise="zscore")
    for number, name in enumerate(names):
        yield f"statistics_{name}", t3.window_statistics(stack, 50, names)[number]
        yield f"statistics_masked_{name}", t3.window_statistics(stack, 50, names, mask=mask)[number]
    yield "statistics_odd_size", t3.window_statistics(stack, 13, names)
    torch.manual_seed(3)
    lenet = torch.nn.Sequential(
        torch.nn.Conv2d(1, 6, 5), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(6, 16, 5), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(16 * 81, 120), torch.nn.ReLU(), torch.nn.Linear(120, 2),
    ).eval()  # fmt: skip
    image = stack[:1]
    yield "scores_dense", t3.score_windows(lenet, image, plan="dense")
    yield "scores_dense_masked", t3.score_windows(lenet, image, mask=mask[:1], plan="dense")
    yield "scores_windows_masked", t3.score_windows(lenet, image, mask=mask[:1], plan="windows")


def toy_example(seed: int) -> tuple[t3.Tomogram, np.ndarray, t3.Candidates, t3.Candidates]:
    """A dark sheet with dark blobs: tomogram, membrane, the T3SS, and bright blobs beside them."""
    rng = np.random.default_rng(seed)
    shape = (24, 72, 72)
    z, y, x = np.indices(shape)
    membrane = (abs(x - 36) < 2).astype(np.uint8)
    values = rng.normal(size=shape) - 3.0 * membrane
    true = np.array([[6, 14, 36], [12, 38, 36], [17, 60, 36]], float)
    false = np.array([[8, 14, 14], [15, 50, 58]], float)
    for sign, centres in ((-6.0, true), (6.0, false)):
        for zyx in centres:
            values += sign * (((z - zyx[0]) ** 2 + (y - zyx[1]) ** 2 + (x - zyx[2]) ** 2) ** 0.5 < 5)

    def particles(centres: np.ndarray) -> t3.Candidates:
        return t3.Candidates(centres, np.ones(len(centres)), np.ones((len(centres), 3)), 13.6, shape)

    tomogram = t3.Tomogram(values.astype(np.float32), 13.6, f"toy_{seed}")
    return tomogram, membrane, particles(true), particles(np.concatenate([false, true]))


def trained_models(folder: Path) -> dict[str, Path]:
    """A segmenter, a classifier and a verifier trained for a few steps, as model files."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        tomograms, membranes, truth, found = (
            list(part) for part in zip(*map(toy_example, range(5)), strict=True)
        )
        return {
            "segmenter": t3.train_segmenter(
                tomograms, membranes, folder / "segmenter.pt", progress=False, **SEGMENTER
            ),
            "classifier": t3.train_classifier(
                tomograms, truth, membranes, folder / "classifier.pt", progress=False, **CLASSIFIER
            ),
            "verifier": t3.train_verifier(
                tomograms, truth, found, folder / "verifier.pt", progress=False, **VERIFIER
            ),
        }
    finally:
        torch.set_num_threads(before)


def other_outputs(folder: Path, load_model: Any) -> Iterator[tuple[str, Any]]:
    """Named outputs of the simulation, the training, the export and the averaging."""
    simulation = t3.simulate(seed=11, shape=(32, 96, 96), voxel_size_angstrom=13.6)
    yield "simulated_tomogram", simulation.tomogram.data
    yield "simulated_membrane", simulation.membrane
    yield "simulated_labels", simulation.labels
    for kind, path in trained_models(folder).items():
        weights = load_model(path, model_kind=kind).module.state_dict()
        yield f"trained_{kind}", np.concatenate([tensor.numpy().ravel() for tensor in weights.values()])
    rng = np.random.default_rng(5)
    shape = (64, 96, 96)
    candidates = t3.Candidates(
        rng.uniform(24, 40, (12, 3)), np.linspace(0.9, 0.1, 12), rng.normal(size=(12, 3)), 13.6, shape,
        "TS_007",
    )  # fmt: skip
    suffixes = {
        "relion5": "a.star",
        "relion4": "b.star",
        "dynamo": "c.tbl",
        "imod": "d.mod",
        "csv": "e.csv",
        "coords": "f.xyz",
    }
    for name, file in suffixes.items():
        options = {"tilt_series_pixel_size_angstrom": 1.7} if name == "relion4" else {}
        written = t3.export(candidates, folder / file, name, **options)
        yield f"export_{name}", np.frombuffer(written[0].read_bytes(), np.uint8)
    volume = rng.normal(size=shape).astype(np.float32)
    tomogram = t3.Tomogram(volume, 13.6, "TS_007")
    yield "extracted", t3.extract(tomogram, candidates, box=24)
    averaged = t3.average(tomogram, candidates, box=24, symmetry="C2", config=t3.AverageConfig(iterations=2))
    yield "average_map", averaged.map
    yield "average_half_maps", np.stack(averaged.half_maps)
    yield "average_refined_centres", averaged.candidates[0].centre_zyx


def weights_of(path: Path) -> str:
    """Return the SHA-256 of the weights of a model file."""
    module = load_model(path, model_kind=path.stem).module
    weights = np.concatenate([tensor.numpy().ravel() for tensor in module.state_dict().values()])
    return str(summary(weights)["sha256"])
