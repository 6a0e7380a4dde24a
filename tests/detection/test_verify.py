"""Verification: centres, axes and scores of candidates, alone and within a detection."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit
from torch import nn

import t3ssfast as t3
from t3ssfast.candidates import Candidates
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.cylindrical_sections import (
    HeldSlices,
    axis_frames,
    box_size,
    correct_axis,
    cut_boxes,
    cylindrical_sections,
    rotate_frames,
)
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.verify import (
    EXTRA_VIEWS,
    HOPELESS_LOG_ODDS,
    ITERATIONS,
    MAX_PENALTY_LOG_ODDS,
    MAX_SHIFT_NM,
    MAX_TILT_DEGREES,
    PENALTY_END_NM,
    PENALTY_START_NM,
    VERIFIER_WEIGHT,
    WEDGE_INNER_DEGREES,
    WEDGE_OUTER_DEGREES,
    missing_membrane_penalty,
    verify,
)
from t3ssfast.models import VERIFIER_ANSWERS, AxialNet, LoadedModel, ModelMetadata, save_model
from t3ssfast.tomogram import Tomogram
from toy import VOXEL, save_toy_models, toy_tomogram

HEIGHT = 16
UPWARDS = np.tile([1.0, 0.0, 0.0], (3, 1))
METADATA = ModelMetadata("verifier", VOXEL, HEIGHT, classes=VERIFIER_ANSWERS)


def darkness(sections: torch.Tensor) -> torch.Tensor:
    """Darkness of each sample, weighted by the circumference that it stands for."""
    radius = torch.arange(sections.shape[3], dtype=torch.float32) + 0.5
    return torch.clamp(-sections - 3.0, min=0.0) * radius


class ScoreDarkness(nn.Module):
    """High logit where it is dark around the axis."""

    def forward(self, sections: torch.Tensor) -> torch.Tensor:
        total = darkness(sections).sum(dim=(1, 2, 3)) / 2
        zero = torch.zeros_like(total)
        return torch.stack([(total - 60.0) / 20, zero, zero, zero, zero, zero], dim=1)


class FindDarkness(nn.Module):
    """Offset to the centroid of the dark voxels."""

    def forward(self, sections: torch.Tensor) -> torch.Tensor:
        radius = torch.arange(sections.shape[3], dtype=torch.float32) + 0.5
        rows = torch.arange(sections.shape[2], dtype=torch.float32) - sections.shape[2] * 5 // 12
        angle = 6.283185307 * torch.arange(sections.shape[1]) / sections.shape[1]
        dark = darkness(sections)
        total = dark.sum(dim=(1, 2, 3)) + 1e-3
        moment = (dark * radius).sum(dim=(2, 3))
        along = (dark.sum(dim=(1, 3)) * rows).sum(dim=1) / total
        across = (moment * torch.cos(angle)).sum(dim=1) / total
        quarter = (moment * torch.sin(angle)).sum(dim=1) / total
        zero = torch.zeros_like(total)
        return torch.stack([zero, along, across, quarter, zero, zero], dim=1)


class FindRod(nn.Module):
    """Tilt of a dark rod through the centre, from where its upper half appears on the sections."""

    def forward(self, sections: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(sections.shape[2]) - sections.shape[2] * 5 // 12
        radius = torch.arange(sections.shape[3], dtype=torch.float32) + 0.5
        angle = 6.283185307 * torch.arange(sections.shape[1]) / sections.shape[1]
        above = (rows > 0).float()[:, None] * darkness(sections)
        along = (above * rows[:, None]).sum(dim=(1, 2, 3))
        moment = (above * radius).sum(dim=(2, 3))
        across = (moment * torch.cos(angle)).sum(dim=1)
        quarter = (moment * torch.sin(angle)).sum(dim=1)
        sideways = torch.sqrt(across**2 + quarter**2) + 1e-6
        tilt = torch.atan2(sideways, along) / sideways
        zero = torch.zeros_like(along)
        return torch.stack([zero, zero, zero, zero, tilt * across, tilt * quarter], dim=1)


class Constant(nn.Module):
    """The same answer for all sections."""

    def __init__(self, logit: float, offset: float = 0.0, tilt: float = 0.0) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.tensor([logit, offset, 0.0, 0.0, tilt, 0.0]))

    def forward(self, sections: torch.Tensor) -> torch.Tensor:
        return self.answer.expand(sections.shape[0], 6)


class MeanOfFirstSection(nn.Module):
    """The mean of the first section as the logit."""

    def forward(self, sections: torch.Tensor) -> torch.Tensor:
        first = sections[:, 0].mean(dim=(1, 2))
        zero = torch.zeros_like(first)
        return torch.stack([first, zero, zero, zero, zero, zero], dim=1)


def loaded(module: nn.Module) -> LoadedModel:
    return LoadedModel(module.eval(), METADATA, "", "<test>")


def prepared(volume: np.ndarray) -> PreparedTomogram:
    return PreparedTomogram.prepare(Tomogram(volume.astype(np.float32), VOXEL))


def noise(shape: tuple[int, int, int], scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(0).normal(scale=scale, size=shape)


def even_scores(count: int) -> np.ndarray:
    """Scores of log-odds 0."""
    return np.full(count, 0.5, np.float32)


def test_log_odds_of_classifier_and_verifier_are_averaged() -> None:
    volume = noise((40, 60, 60), 0.3)
    z, y, x = np.indices(volume.shape)
    volume[(z - 20) ** 2 + (y - 30) ** 2 + (x - 31) ** 2 < 4.2**2] = -8.0
    grid = prepared(volume)
    centres = np.array([[20.2, 30, 30.8], [21, 28, 32], [35, 10, 51]])
    *_, log_odds = verify(grid, centres, UPWARDS, even_scores(3), loaded(ScoreDarkness()))
    assert (log_odds[:2] > 2.2).all()
    assert log_odds[2] < -0.4
    scores = np.array([0.1, 0.9, 0.999], np.float32)
    found, axes, _, log_odds = verify(grid, centres, UPWARDS, scores, loaded(Constant(-2.0)))
    expected = (1 - VERIFIER_WEIGHT) * logit(scores) - 2.0 * VERIFIER_WEIGHT
    np.testing.assert_allclose(log_odds, expected, rtol=1e-4)
    np.testing.assert_allclose(found, centres)
    np.testing.assert_allclose(axes, UPWARDS)
    extremes = np.array([0.0, 1.0, 0.5], np.float32)
    *_, log_odds = verify(grid, centres, UPWARDS, extremes, loaded(Constant(0.0)))
    assert np.isfinite(log_odds).all()


def test_results_do_not_depend_on_the_other_candidates() -> None:
    torch.manual_seed(0)
    model = loaded(AxialNet((2, 3, 4, 4), 8, HEIGHT))
    grid = prepared(noise((30, 50, 40)))
    rng = np.random.default_rng(1)
    centre, score = rng.uniform(0, (29, 49, 39), (37, 3)), rng.random(37).astype(np.float32)
    axis, order = rng.normal(size=(37, 3)), rng.permutation(37)
    results = verify(grid, centre, axis, score, model)
    shuffled = verify(grid, centre[order], axis[order], score[order], model)
    for result, other, tolerance in zip(results, shuffled, (1e-4, 1e-4, 0, 1e-5), strict=True):
        np.testing.assert_allclose(result[order], other, rtol=0, atol=tolerance)


def test_hopeless_candidates_keep_the_answer_of_the_look_that_told(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = AxialNet((2, 3, 4, 4), 8, HEIGHT)
    seen: list[int] = []
    network.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    model, grid = loaded(network), prepared(noise((30, 50, 40)))
    monkeypatch.setattr(LoadedModel, "fused", property(lambda loaded: loaded.module))
    rng = np.random.default_rng(1)
    centre, axis = rng.uniform(0, (29, 49, 39), (30, 3)), rng.normal(size=(30, 3))
    # The network says next to nothing, so that the score decides.
    score = np.where(np.arange(30) < 10, 0.9, 1e-4).astype(np.float32)
    *_, first_look = verify(grid, centre, axis, score, model)
    assert sum(seen) == 30 * (ITERATIONS + len(EXTRA_VIEWS))
    seen.clear()
    found = verify(grid, centre, axis, score, model, drop_hopeless=True)
    assert sum(seen) == 30 + 10 * (ITERATIONS - 1 + len(EXTRA_VIEWS))
    promising = verify(grid, centre[:10], axis[:10], score[:10], model)
    for result, other, tolerance in zip(found, promising, (1e-4, 1e-4, 0, 1e-5), strict=True):
        np.testing.assert_allclose(result[:10], other, rtol=0, atol=tolerance)
    monkeypatch.setattr("t3ssfast.detection.verify.ITERATIONS", 1)
    monkeypatch.setattr("t3ssfast.detection.verify.EXTRA_VIEWS", ((0.0, 0.0),))
    hopeless = verify(grid, centre[10:], axis[10:], score[10:], model)
    np.testing.assert_allclose(found[0][10:], hopeless[0], atol=1e-4)
    assert (found[3][10:] < HOPELESS_LOG_ODDS[0]).all()
    assert (found[3][10:] < first_look[:10].min()).all()


def test_slices_are_prepared_once_for_all_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared_slices: list[int] = []
    slab = PreparedTomogram.slab

    def counted(grid: PreparedTomogram, z0: int, z1: int) -> np.ndarray:
        prepared_slices.extend(range(z0, z1))
        return slab(grid, z0, z1)

    monkeypatch.setattr(PreparedTomogram, "slab", counted)
    grid, rng = prepared(noise((200, 24, 24))), np.random.default_rng(2)
    centre = rng.uniform(0, (199, 23, 23), (60, 3))
    verify(grid, centre, rng.normal(size=(60, 3)), even_scores(60), loaded(Constant(0.0, 3.0)))
    assert len(prepared_slices) == len(set(prepared_slices))


def test_no_candidates_give_empty_results() -> None:
    none = np.zeros((0, 3))
    grid = prepared(noise((20, 30, 30)))
    centre, axis, kind, log_odds = verify(grid, none, none, even_scores(0), loaded(ScoreDarkness()))
    assert centre.shape == axis.shape == (0, 3)
    assert kind.shape == log_odds.shape == (0,)
    assert missing_membrane_penalty(np.zeros((9, 9, 9)), none, none, VOXEL).shape == (0,)


def test_each_iteration_moves_the_centre_within_bounds() -> None:
    grid, scores = prepared(noise((40, 50, 60))), even_scores(2)
    centre = np.array([[20.0, 25.0, 30.0], [20.0, 25.0, 59.0]])
    axis = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    near, *_ = verify(grid, centre, axis, scores, loaded(Constant(0.0, 1.5)))
    np.testing.assert_allclose(near, [[20, 25, 30 + 1.5 * ITERATIONS], [20, 25, 59]])
    far, *_ = verify(grid, centre, axis, scores, loaded(Constant(0.0, 50.0)))
    np.testing.assert_allclose(far[0], [20, 25, min(59, 30 + ITERATIONS * MAX_SHIFT_NM * 10 / VOXEL)])


@pytest.mark.parametrize(("tilt", "degrees"), [(0.0, 0.0), (0.2, math.degrees(0.2)), (3.0, MAX_TILT_DEGREES)])
def test_each_iteration_tilts_the_axis_within_bounds(
    tilt: float, degrees: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("t3ssfast.detection.verify.ITERATIONS", 1)
    axis, model = np.array([[0.0, 0.6, 0.8]]), loaded(Constant(0.0, tilt=tilt))
    _, tilted, *_ = verify(prepared(noise((40, 50, 60))), [[20.0, 25.0, 30.0]], axis, even_scores(1), model)
    # The second row of the frame is the direction of the beam here.
    angle = math.radians(degrees)
    np.testing.assert_allclose(tilted, [[math.sin(angle), *(math.cos(angle) * axis[0, 1:])]], atol=1e-6)


def test_the_last_answer_is_averaged_with_those_for_extra_views() -> None:
    grid, centres = prepared(noise((40, 50, 60))), np.array([[20.3, 25.1, 30.7], [17.0, 22.6, 33.2]])
    frames = axis_frames(np.array([[1.0, 2.0, 3.0], [0.2, -1.0, 0.4]]))
    middle = np.floor(centres + 0.5).astype(np.int64)
    ((order, boxes),) = cut_boxes(HeldSlices(grid), middle, box_size(HEIGHT))
    assert (order == [1, 0]).all()
    answers = []
    for degrees, nm in ((0.0, 0.0), *EXTRA_VIEWS):
        centre = centres - middle + nm * 10 / VOXEL * frames[:, 1]
        rotated = rotate_frames(frames, np.full(2, math.radians(degrees)))
        sections = cylindrical_sections(boxes[order], centre, rotated, HEIGHT)
        answers.append(sections[:, 0].mean(dim=(1, 2)).numpy())
    assert np.ptp(answers, axis=0).min() > 1e-3
    *_, log_odds = verify(grid, centres, frames[:, 0], even_scores(2), loaded(MeanOfFirstSection()))
    expected = VERIFIER_WEIGHT * np.mean(answers, axis=0)
    np.testing.assert_allclose(log_odds, expected, rtol=1e-4, atol=1e-6)


@given(seed=st.integers(0, 2**32 - 1), voxel=st.sampled_from([9.0, 13.6, 21.0]))
@settings(max_examples=30, deadline=None)
def test_penalty_depends_on_membrane_distance_and_tilt(seed: int, voxel: float) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((30, 60, 80)) < rng.choice([0.0, 1e-4, 1e-2])
    centres = rng.uniform(0, (29, 59, 79), (5, 3))
    axes = rng.normal(size=(5, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    penalty = missing_membrane_penalty(mask.astype(np.uint8), centres, axes, voxel)
    membrane = np.argwhere(mask)
    for k in range(5):
        distance = np.linalg.norm(membrane - centres[k], axis=1).min(initial=np.inf) * voxel / 10
        far = np.clip((distance - PENALTY_START_NM) / (PENALTY_END_NM - PENALTY_START_NM), 0, 1)
        from_beam = np.degrees(np.arccos(abs(axes[k, 0])))
        wedge = WEDGE_OUTER_DEGREES - WEDGE_INNER_DEGREES
        visible = np.clip((from_beam - WEDGE_INNER_DEGREES) / wedge, 0, 1)
        np.testing.assert_allclose(penalty[k], MAX_PENALTY_LOG_ODDS * far * visible, atol=1e-9)


def test_a_ball_is_found_from_centres_beside_it() -> None:
    volume = noise((48, 60, 60), 0.3)
    z, y, x = np.indices(volume.shape)
    ball = np.array([24.3, 30.6, 29.2])
    volume[(z - ball[0]) ** 2 + (y - ball[1]) ** 2 + (x - ball[2]) ** 2 < 4**2] = -8.0
    rng = np.random.default_rng(3)
    axis = rng.normal(size=(12, 3))
    offset = axis / np.linalg.norm(axis, axis=1, keepdims=True) * rng.uniform(0, 3, (12, 1))
    found, *_ = verify(
        prepared(volume), ball + offset, rng.normal(size=(12, 3)), even_scores(12), loaded(FindDarkness())
    )
    assert np.linalg.norm(found - ball, axis=1).max() < 0.6


def test_a_rod_is_found_from_axes_beside_it() -> None:
    volume = noise((48, 48, 48), 0.3)
    position = np.moveaxis(np.indices(volume.shape), 0, -1) - 23.5
    rng = np.random.default_rng(5)
    for _ in range(6):
        true = rng.normal(size=3)
        true /= np.linalg.norm(true)
        rod = volume.copy()
        rod[np.linalg.norm(np.cross(position, true), axis=-1) < 2.0] = -8.0
        start = correct_axis(axis_frames(true[None]), rng.uniform(-0.4, 0.4, (1, 2)))
        _, axis, *_ = verify(prepared(rod), [[23.5] * 3], start, even_scores(1), loaded(FindRod()))
        error = [np.degrees(np.arccos(np.clip(abs(a[0] @ true), 0, 1))) for a in (start, axis)]
        assert error[1] < max(4.0, error[0] / 2)


# ------------------------------------------------------------------------------------------- in a detection


def detect_with(
    folder: Path, tomogram: Tomogram, module: nn.Module, membrane: np.ndarray | None = None, **config: object
) -> t3.Detection:
    segmenter, classifier = save_toy_models(folder)
    save_model(module, folder / "verifier.pt", METADATA)
    return t3.detect(
        tomogram,
        segmenter=segmenter,
        classifier=classifier,
        verifier=folder / "verifier.pt",
        membrane=membrane,
        config=DetectConfig(**{"contrast": "dark", **config}),  # type: ignore[arg-type]
        device="cpu",
        progress=False,
    )


def test_verifier_changes_the_scores(tmp_path: Path) -> None:
    tomogram, truth, _ = toy_tomogram()
    plain = detect_with(tmp_path, tomogram, Constant(-9.0), verify=False)
    assert len(plain.candidates) == len(truth)
    assert plain.provenance["models"]["verifier"] is None
    rejected = detect_with(tmp_path, tomogram, Constant(-40.0))
    assert len(rejected.candidates) == 0
    assert rejected.provenance["counts"]["peaks"] >= len(truth)
    accepted = detect_with(tmp_path, tomogram, Constant(2.0))
    candidates = accepted.candidates
    assert isinstance(candidates, Candidates)
    assert candidates.centre_zyx.dtype == np.float32
    assert (np.diff(candidates.score) <= 0).all()
    np.testing.assert_allclose(candidates.centre_zyx, plain.candidates.centre_zyx, atol=1e-3)
    plain_log_odds = logit(np.clip(plain.candidates.score, 1e-4, 1 - 1e-4))
    expected = (1 - VERIFIER_WEIGHT) * plain_log_odds + 2.0 * VERIFIER_WEIGHT
    np.testing.assert_allclose(logit(candidates.score), expected, rtol=1e-3)
    assert accepted.provenance["models"]["verifier"]["path"].endswith("verifier.pt")


def test_candidates_across_the_beam_without_membrane_are_penalised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tomogram, truth, membrane = toy_tomogram()
    position = np.moveaxis(np.indices(membrane.shape), 0, -1)
    membrane[np.linalg.norm(position - truth.centre_zyx[0], axis=-1) * VOXEL / 10 > 25] = 0
    # Without membrane the axes lie along the beam; one iteration tilts them by a radian.
    monkeypatch.setattr("t3ssfast.detection.verify.ITERATIONS", 1)
    log_odds = []
    for maximum in (0.0, MAX_PENALTY_LOG_ODDS):
        monkeypatch.setattr("t3ssfast.detection.verify.MAX_PENALTY_LOG_ODDS", maximum)
        model, options = Constant(2.0, tilt=1.0), {"search_distance_nm": 300.0}
        found = detect_with(tmp_path, tomogram, model, membrane, **options).candidates
        distance = np.linalg.norm(truth.centre_zyx[:, None] - found.centre_zyx, axis=-1)
        assert (distance.min(axis=1) < 4).all()
        found = found[distance.argmin(axis=1)]
        log_odds.append(logit(found.score))
    expected = missing_membrane_penalty(
        membrane, found.centre_zyx.astype(np.float64), found.normal_zyx, VOXEL
    )
    assert expected[0] == 0
    assert expected.max() > 0.3 * MAX_PENALTY_LOG_ODDS
    np.testing.assert_allclose(log_odds[0] - log_odds[1], expected, atol=1e-3)


def test_peaks_that_move_to_one_centre_become_one_candidate(tmp_path: Path) -> None:
    tomogram, truth, _ = toy_tomogram()
    options = {
        "min_distance_nm": 4.0,
        "score_smoothing_nm": 0.5,
        "score_threshold": 0.01,
        "verify_floor": 0.01,
    }
    plain = detect_with(tmp_path, tomogram, Constant(0.0), verify=False, **options).candidates
    assert len(plain) > len(truth)
    moved = detect_with(tmp_path, tomogram, FindDarkness(), **options).candidates
    assert len(moved) < len(plain)
    distance = np.linalg.norm(moved.centre_zyx[:, None] - moved.centre_zyx, axis=2) * VOXEL / 10
    assert distance[~np.eye(len(moved), dtype=bool)].min() >= options["min_distance_nm"] / 2


@pytest.mark.parametrize("case", ["dark", "light", "coarser"])
def test_particles_are_found_at_other_contrast_and_voxel_size(tmp_path: Path, case: str) -> None:
    tomogram, truth, _ = toy_tomogram(step=1.2) if case == "coarser" else toy_tomogram()
    contrast = "light" if case == "light" else "dark"
    if contrast == "light":
        tomogram = Tomogram(-tomogram.data, VOXEL, "light")
    found = detect_with(tmp_path, tomogram, ScoreDarkness(), contrast=contrast).candidates
    evaluation = t3.evaluate(found, truth, tolerance_angstrom=80.0)
    assert evaluation.true_positives == 3
    # At another voxel size the toy models take some membrane for a particle.
    assert evaluation.false_positives == 0 or case == "coarser"


def test_the_bundled_verifier_is_used_with_the_bundled_classifier_only(tmp_path: Path) -> None:
    tomogram, _, membrane = toy_tomogram()
    _, classifier = save_toy_models(tmp_path)
    config = DetectConfig(contrast="dark")
    own = t3.detect(tomogram, classifier=classifier, membrane=membrane, config=config, progress=False)
    assert own.provenance["models"]["verifier"] is None
    bundled = t3.detect(tomogram, membrane=membrane, config=config, progress=False)
    assert bundled.provenance["models"]["verifier"]["path"] == "bundled:verifier"
