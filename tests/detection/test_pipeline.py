"""The whole pipeline, on a toy world with hand-made models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.interpolate import interp1d
from torch import nn

import t3ssfast as t3
from networks import segment
from t3ssfast.candidates import Candidates
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.errors import OutputError
from t3ssfast.models import ModelMetadata, load_model, save_model
from t3ssfast.tomogram import Tomogram
from toy import INNER, MIDDLE, VOXEL, Models, ToySegmenter, same_candidates, toy_detect, toy_tomogram


def test_every_particle_is_found_with_its_pose(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray]
) -> None:
    tomogram, truth, membrane = world
    detection = toy_detect(tomogram, models)
    found = t3.evaluate(detection.candidates, truth, 120.0)
    assert (found.true_positives, found.false_positives, found.false_negatives) == (3, 0, 0)
    assert found.median_normal_error_degrees < 10
    assert found.polarity_right == 1
    assert (np.diff(detection.candidates.score) <= 0).all()
    assert detection.candidates.tomogram_shape == tomogram.shape
    assert detection.candidates.tomogram_name == "toy"
    assert detection.membrane is not None
    assert detection.membrane.dtype == np.uint8
    assert detection.membrane.shape == tomogram.shape
    overlap = 2 * (detection.membrane & membrane).sum() / (detection.membrane.sum() + membrane.sum())
    assert overlap > 0.6


@pytest.mark.parametrize("slab_slices", [1, 7, None])
def test_membrane_is_averaged_over_neighbouring_slices(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], slab_slices: int | None
) -> None:
    tomogram = world[0]
    config = DetectConfig(
        contrast="dark", membrane_min_area_nm2=0, slab_slices=slab_slices, segmented_spacing_nm=0
    )
    found = toy_detect(tomogram, models, config=config).membrane
    segmenter = load_model(models["segmenter"], model_kind="segmenter")
    said = segmenter.metadata
    grid = PreparedTomogram.prepare(
        tomogram, voxel_size_angstrom=said.voxel_size_angstrom, normalisation=said.normalisation
    )
    alone = segment(grid.slab(0, len(tomogram.data)), segmenter)
    average = ndimage.convolve1d(alone.astype(np.float64), [0.25, 0.5, 0.25], axis=0, mode="nearest")
    # Probabilities are held in 255ths.
    clear = np.abs(average - config.membrane_threshold) > 1 / 255
    np.testing.assert_array_equal((average > config.membrane_threshold)[clear], found[clear] != 0)
    assert ((alone > config.membrane_threshold) != (found != 0)).any()


@pytest.mark.parametrize("slab_slices", [1, 7, None])
def test_membrane_between_segmented_slices_is_interpolated(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], slab_slices: int | None
) -> None:
    tomogram = world[0]
    config = DetectConfig(
        contrast="dark",
        membrane_min_area_nm2=0,
        slab_slices=slab_slices,
        segmented_spacing_nm=2.99 * VOXEL / 10,
    )
    found = toy_detect(tomogram, models, config=config).membrane
    segmenter = load_model(models["segmenter"], model_kind="segmenter")
    grid = PreparedTomogram.prepare(
        tomogram, voxel_size_angstrom=VOXEL, normalisation=segmenter.metadata.normalisation
    )
    alone = segment(grid.slab(0, len(tomogram.data)), segmenter).astype(np.float64)
    depth = len(alone)
    known = sorted({*range(0, depth, 2), depth - 1})
    between = interp1d(known, alone[known], axis=0)(np.arange(depth))
    average = ndimage.convolve1d(between, [0.25, 0.5, 0.25], axis=0, mode="nearest")
    clear = np.abs(average - config.membrane_threshold) > 1 / 255
    np.testing.assert_array_equal((average > config.membrane_threshold)[clear], found[clear] != 0)


def test_membrane_face_is_interpolated_between_voxels(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray]
) -> None:
    tomogram = replace(world[0], voxel_size_angstrom=VOXEL * 1.2)
    config = DetectConfig(contrast="dark", membrane_min_area_nm2=0, segmented_spacing_nm=0)
    found = toy_detect(tomogram, models, config=config).membrane
    segmenter = load_model(models["segmenter"], model_kind="segmenter")
    said = segmenter.metadata
    grid = PreparedTomogram.prepare(
        tomogram, voxel_size_angstrom=said.voxel_size_angstrom, normalisation=said.normalisation
    )
    assert not grid.on_own_voxels
    alone = segment(grid.slab(0, grid.shape[0]), segmenter)
    average = ndimage.convolve1d(alone, [0.25, 0.5, 0.25], axis=0, mode="nearest")
    # The interpolated probability decides, not that of the nearest grid point.
    low, high = (grid.mask_to_tomogram(average, config.membrane_threshold + d) for d in (1 / 255, -1 / 255))
    assert found is not None
    assert (low <= found).all()
    assert (found <= high).all()
    of_mask = grid.mask_to_tomogram((average > config.membrane_threshold).astype(np.uint8))
    assert np.count_nonzero(of_mask != found) > 10 * np.count_nonzero(low != high)


def test_faint_membrane_is_searched_around_but_not_reported(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray]
) -> None:
    tomogram, truth, _ = world
    plain = toy_detect(tomogram, models, config=DetectConfig(contrast="dark"))
    strict = toy_detect(tomogram, models, config=DetectConfig(contrast="dark", membrane_threshold=0.999))
    assert strict.membrane is not None
    assert plain.membrane is not None
    assert 2 * strict.membrane.sum() < plain.membrane.sum()
    same_candidates(plain, strict)
    # The lower of the two thresholds decides about the search region.
    lower = DetectConfig(contrast="dark", membrane_threshold=0.4)
    wider = toy_detect(tomogram, models, config=lower)
    both = toy_detect(tomogram, models, config=replace(lower, search_threshold=0.4))
    same_candidates(wider, both)
    assert wider.provenance["counts"]["membrane_voxels"] > plain.provenance["counts"]["membrane_voxels"]
    assert len(wider.candidates) == len(truth)


def test_provenance_describes_the_run(models: Models, world: tuple[Tomogram, Candidates, np.ndarray]) -> None:
    provenance = toy_detect(world[0], models).provenance
    json.dumps(provenance, allow_nan=False)
    assert provenance["software"]["torch"] == torch.__version__
    assert provenance["models"]["classifier"]["path"] == str(models["classifier"])
    assert len(provenance["models"]["segmenter"]["sha256"]) == 64
    assert provenance["contrast"]["sign"] == 1
    counts = provenance["counts"]
    assert counts["voxels"] == world[0].data.size
    assert counts["voxels"] > counts["windows_searched"] >= counts["windows_judged"] > 0
    assert counts["candidates"] == 3
    assert provenance["config"] == DetectConfig().to_dict()
    assert {"segment", "classify", "pick"} <= set(provenance["seconds"])
    assert provenance["notes"] == []
    assert "dense" in provenance["plan"]
    used = provenance["models"]["segmenter"]["engine"]
    assert used in ("torch", "torch-bfloat16", "torch-int8", "openvino")
    assert provenance["models"]["segmenter"]["engine_reason"]


def test_given_membrane_replaces_the_segmenter(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], tmp_path: Path
) -> None:
    tomogram, truth, membrane = world
    given = toy_detect(tomogram, {"classifier": models["classifier"]}, membrane=membrane)
    assert given.membrane is None
    assert given.provenance["models"]["segmenter"] is None
    assert given.provenance["contrast"]["sign"] == 1
    assert t3.evaluate(given.candidates, truth, 120.0).f1 == 1
    t3.write(tmp_path / "membrane.mrc", membrane, 1.0)
    from_file = toy_detect(tomogram, {"classifier": models["classifier"]}, membrane=tmp_path / "membrane.mrc")
    same_candidates(given, from_file)
    as_tensor = toy_detect(
        torch.from_numpy(tomogram.data),
        {"classifier": models["classifier"]},
        membrane=torch.from_numpy(membrane) > 0,
        voxel_size_angstrom=VOXEL,
    )
    same_candidates(given, as_tensor)


def test_bright_protein_is_recognised(models: Models, world: tuple[Tomogram, Candidates, np.ndarray]) -> None:
    tomogram, _, membrane = world
    dark = toy_detect(tomogram, models)
    inverted = replace(tomogram, data=-tomogram.data)
    for options in (
        {"segmenter": models["segmenter"]},
        {"segmenter": models["segmenter"], "config": DetectConfig(contrast="light")},
        {"membrane": membrane},
    ):
        bright = toy_detect(inverted, {"classifier": models["classifier"]}, **options)
        assert bright.provenance["contrast"]["sign"] == -1
        np.testing.assert_allclose(bright.candidates.centre_zyx, dark.candidates.centre_zyx, atol=0.5)
    wrong = toy_detect(inverted, models, config=DetectConfig(contrast="dark"))
    assert len(wrong.candidates) == 0


def test_models_trained_on_bright_protein(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], tmp_path: Path
) -> None:
    class Inverted(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(-x)

    metadata = ModelMetadata("segmenter", voxel_size_angstrom=VOXEL, contrast="light")
    save_model(Inverted(ToySegmenter()), tmp_path / "light.pt", metadata)
    light = toy_detect(world[0], {**models, "segmenter": tmp_path / "light.pt"})
    assert light.provenance["contrast"]["sign"] == 1
    same_candidates(light, toy_detect(world[0], models))


@pytest.mark.parametrize(("step", "noise"), [(0.8, 1.9), (1.25, 1.35)])
def test_other_voxel_sizes_are_resampled_and_mapped_back(models: Models, step: float, noise: float) -> None:
    tomogram, truth, membrane = toy_tomogram(step=step, noise=noise)
    # The toy segmenter sees single noisy slices, of which it needs every one.
    config = DetectConfig(segmented_spacing_nm=0, membrane_threshold=0.6)
    detection = toy_detect(tomogram, models, config=config)
    found = t3.evaluate(detection.candidates, truth, 120.0)
    assert (found.true_positives, found.false_positives, found.polarity_right) == (3, 0, 1)
    assert found.median_distance_angstrom < 40
    assert detection.candidates.voxel_size_angstrom == tomogram.voxel_size_angstrom
    assert detection.membrane is not None
    overlap = 2 * (detection.membrane & membrane).sum() / (detection.membrane.sum() + membrane.sum())
    assert overlap > 0.6


def test_models_with_different_grids_work_together(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], tmp_path: Path
) -> None:
    tomogram, truth, _ = world
    metadata = ModelMetadata("segmenter", voxel_size_angstrom=VOXEL * 1.2)
    save_model(ToySegmenter(level=-1.3), tmp_path / "coarse.pt", metadata)
    detection = toy_detect(tomogram, {**models, "segmenter": tmp_path / "coarse.pt"})
    assert t3.evaluate(detection.candidates, truth, 120.0).f1 == 1
    assert detection.membrane is not None
    assert detection.membrane.shape == tomogram.shape


def test_no_membrane_no_candidates(models: Models) -> None:
    noise = np.random.default_rng(1).normal(size=(12, 80, 80)).astype(np.float32)
    detection = toy_detect(noise, models, voxel_size_angstrom=VOXEL)
    assert len(detection.candidates) == 0
    assert detection.membrane is not None
    assert not detection.membrane.any()
    assert "No membrane" in detection.provenance["notes"][0]


def test_single_slice(models: Models, world: tuple[Tomogram, Candidates, np.ndarray]) -> None:
    tomogram, truth, membrane = world
    z = round(float(truth.centre_zyx[0, 0]))
    one = slice(z, z + 1)
    detection = toy_detect(
        tomogram.data[one],
        {"classifier": models["classifier"]},
        membrane=membrane[one],
        voxel_size_angstrom=VOXEL,
    )
    near = np.linalg.norm(detection.candidates.centre_zyx[:, 1:] - truth.centre_zyx[0, 1:], axis=1)
    assert near.min() < 4
    # In a single slice no component has the smallest area that is required in a thick volume.
    segmented = toy_detect(tomogram.data[one], models, voxel_size_angstrom=VOXEL)
    assert segmented.membrane is not None
    assert segmented.membrane.mean() > 0.03


def test_particles_at_the_edge_of_the_volume(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray]
) -> None:
    tomogram, truth, membrane = world
    # A cut through the periplasm beside the first particle leaves half of its window.
    cut = int(truth.centre_zyx[0, 2]) + 8
    detection = toy_detect(
        tomogram.data[:, :, :cut],
        {"classifier": models["classifier"]},
        membrane=membrane[:, :, :cut],
        voxel_size_angstrom=VOXEL,
    )
    near = np.linalg.norm(detection.candidates.centre_zyx - truth.centre_zyx[0], axis=1)
    assert near.min() < 6


def test_max_candidates_and_threshold_keep_the_best(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray]
) -> None:
    every = toy_detect(world[0], models)
    best = toy_detect(world[0], models, config=DetectConfig(max_candidates=1))
    np.testing.assert_array_equal(best.candidates.centre_zyx, every.candidates.centre_zyx[:1])
    between = float(every.candidates.score[:2].mean())
    assert len(toy_detect(world[0], models, config=DetectConfig(score_threshold=between)).candidates) == 1


def test_saved_results_are_complete(
    models: Models, world: tuple[Tomogram, Candidates, np.ndarray], tmp_path: Path
) -> None:
    detection = toy_detect(world[0], models)
    detection.save(tmp_path / "out")
    back = t3.load_candidates(tmp_path / "out" / "candidates.star")
    np.testing.assert_allclose(back.centre_zyx, detection.candidates.centre_zyx, atol=0.01)
    np.testing.assert_array_equal(t3.read(tmp_path / "out" / "membrane.mrc").data, detection.membrane)
    assert json.loads((tmp_path / "out" / "provenance.json").read_text())["counts"]["candidates"] == 3
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"candidates.csv", "candidates.mod", "candidates.tbl"} <= names
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        detection.save(tmp_path / "file")


def test_toy_particles_lie_between_the_membranes(
    world: tuple[Tomogram, Candidates, np.ndarray],
) -> None:
    """Of the toy itself: its particles are where a T3SS would be."""
    _, truth, membrane = world
    middle = (np.array(membrane.shape[1:]) - 1) / 2
    radius = np.linalg.norm(truth.centre_zyx[:, 1:] - middle, axis=1)
    np.testing.assert_allclose(radius, MIDDLE, atol=0.01)
    assert INNER < MIDDLE
