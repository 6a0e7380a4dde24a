"""Results equal those recorded: to the byte on the machine that recorded them, within rounding elsewhere."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from golden_results import (
    DETECTIONS,
    FILES,
    GOLDEN,
    detect_into_folder,
    kernel_outputs,
    machine,
    other_outputs,
    summary,
    weights_of,
)

from t3ssfast.models import load_model

RECORDED = json.loads((GOLDEN / "outputs.json").read_text(encoding="utf-8"))
SAME_MACHINE = RECORDED["machine"] == machine()
# How far another machine's rounding may move a result.
CENTRE_VOXELS, SCORE, MEMBRANE_FRACTION = 0.1, 2e-3, 1e-3


def recorded_file(name: str, file: str) -> bytes:
    path = GOLDEN / name / file
    return path.read_bytes() if path.is_file() else gzip.decompress(Path(f"{path}.gz").read_bytes())


@pytest.mark.parametrize("name", DETECTIONS)
def test_detection_equals_the_recorded_one(name, tmp_path):
    detect_into_folder(name, tmp_path)
    if SAME_MACHINE:
        for file in FILES:
            assert (tmp_path / file).read_bytes() == recorded_file(name, file), file
        return
    table = np.genfromtxt(
        tmp_path / "candidates.csv", delimiter=",", names=True, dtype=None, encoding="utf-8"
    )
    recorded = recorded_file(name, "candidates.csv").decode().splitlines()
    expected = np.genfromtxt(recorded, delimiter=",", names=True, dtype=None, encoding="utf-8")
    assert len(table) == len(expected) > 0
    for column in "zyx":
        np.testing.assert_allclose(table[column], expected[column], atol=CENTRE_VOXELS)
    np.testing.assert_allclose(table["score"], expected["score"], atol=SCORE)
    (tmp_path / "expected.mrc").write_bytes(recorded_file(name, "membrane.mrc"))
    with mrcfile.open(tmp_path / "membrane.mrc") as found, mrcfile.open(tmp_path / "expected.mrc") as wanted:
        assert np.mean(found.data != wanted.data) < MEMBRANE_FRACTION


def assert_as_recorded(name: str, array: object) -> None:
    made, expected = summary(array), RECORDED["outputs"][name]
    if SAME_MACHINE:
        assert made == expected, name
        return
    assert (made["shape"], made["dtype"]) == (expected["shape"], expected["dtype"]), name
    for value in ("mean", "std"):
        assert made[value] == pytest.approx(expected[value], rel=1e-2, abs=1e-2 * expected["std"]), name


def test_kernels_answer_as_recorded():
    for name, array in kernel_outputs():
        assert_as_recorded(name, array)


def test_simulation_training_export_and_average_are_as_recorded(tmp_path):
    for name, array in other_outputs(tmp_path, load_model):
        assert_as_recorded(name, array)


@pytest.mark.parametrize("kind", ["segmenter", "classifier", "verifier"])
def test_model_files_of_earlier_versions_load(kind):
    model = load_model(GOLDEN / "models" / f"{kind}.pt", model_kind=kind)
    assert weights_of(GOLDEN / "models" / f"{kind}.pt") == RECORDED["models"][kind]
    assert model.metadata.recipe["steps"] == 12
