"""The second look: where boxes are cut, what is made of the answers, and what a detection does with them."""

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
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.verify import (
    DOUBT,
    FAR_NM,
    LEFT_DEGREES,
    LOOKS,
    NEAR_NM,
    REACH_DEGREES,
    REACH_NM,
    TAKEN_DEGREES,
    VERIFIER_PART,
    VIEWS,
    axis_correction,
    axis_frames,
    box_size,
    correct_axis,
    cut_boxes,
    cylindrical_sections,
    missing_membrane_penalty,
    rotate_frames,
    verify,
)
from t3ssfast.errors import ModelError
from t3ssfast.models import (
    AZIMUTHS,
    VERIFIER_ANSWERS,
    AxialNet,
    LoadedModel,
    ModelMetadata,
    load_model,
    save_model,
)
from t3ssfast.tomogram import Tomogram
from toy import VOXEL, save_toy_models, toy_tomogram

HEIGHT = 16
UP = np.tile([1.0, 0.0, 0.0], (3, 1))


class Darkest(nn.Module):
    """Sure where it is dark about the axis."""

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        dark = torch.clamp(-planes - 3.0, min=0.0)
        # A ring counts by its length.
        away = torch.arange(planes.shape[3], dtype=torch.float32) + 0.5
        total = (dark * away).sum(dim=(1, 2, 3)) / 2
        none = torch.zeros_like(total)
        return torch.stack([(total - 60.0) / 20, none, none, none, none, none], dim=1)


class CentreOfDark(nn.Module):
    """Answers where it is dark."""

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        away = torch.arange(planes.shape[3], dtype=torch.float32) + 0.5
        rows = torch.arange(planes.shape[2], dtype=torch.float32) - planes.shape[2] * 5 // 12
        angle = 6.283185307 * torch.arange(planes.shape[1]) / planes.shape[1]
        dark = torch.clamp(-planes - 3.0, min=0.0) * away  # a ring counts by its length
        total = dark.sum(dim=(1, 2, 3)) + 1e-3
        outwards = (dark * away).sum(dim=(2, 3))
        sums = [
            (dark.sum(dim=(1, 3)) * rows).sum(dim=1),
            (outwards * torch.cos(angle)).sum(dim=1),
            (outwards * torch.sin(angle)).sum(dim=1),
        ]
        none = torch.zeros_like(total)
        offset = [sums[0] / total, sums[1] / total, sums[2] / total]
        return torch.stack([none, offset[0], offset[1], offset[2], none, none], dim=1)


class Opinion(nn.Module):
    """The same answer whatever it sees."""

    def __init__(self, logit: float, offset: float = 0.0, lean: float = 0.0) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.tensor([logit, offset, 0.0, 0.0, lean, 0.0]))

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        return self.answer.expand(planes.shape[0], 6)


class LeanOfARod(nn.Module):
    """Answers how the dark rod through the point leans, from where on every half-plane its upper half is."""

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(planes.shape[2]) - planes.shape[2] * 5 // 12
        away = torch.arange(planes.shape[3], dtype=torch.float32) + 0.5
        angle = 6.283185307 * torch.arange(planes.shape[1]) / planes.shape[1]
        above = (rows > 0).float()[:, None] * torch.clamp(-planes - 3.0, min=0.0) * away
        along = (above * rows[:, None]).sum(dim=(1, 2, 3))
        outwards = (above * away).sum(dim=(2, 3))
        across = (outwards * torch.cos(angle)).sum(dim=1)
        quarter = (outwards * torch.sin(angle)).sum(dim=1)
        aside = torch.sqrt(across**2 + quarter**2) + 1e-6
        theta = torch.atan2(aside, along)
        none = torch.zeros_like(along)
        lean = [theta * across / aside, theta * quarter / aside]
        return torch.stack([none, none, none, none, *lean], dim=1)


def metadata(height: int = HEIGHT, **changes: object) -> ModelMetadata:
    given = {"voxel_size_angstrom": VOXEL, "window_px": height, "classes": VERIFIER_ANSWERS, **changes}
    return ModelMetadata("verifier", **given)  # type: ignore[arg-type]


def loaded(module: nn.Module, height: int = HEIGHT) -> LoadedModel:
    return LoadedModel(module.eval(), metadata(height), "", "<test>")


def prepared(shape: tuple[int, int, int], seed: int = 0) -> PreparedTomogram:
    data = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return PreparedTomogram.prepare(Tomogram(data, VOXEL), voxel_size_angstrom=VOXEL)


@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(2, 30), st.integers(2, 30)),
    box=st.integers(2, 24),
    count=st.integers(0, 40),
    seed=st.integers(0, 99),
)
def test_boxes_are_those_of_numpy(shape: tuple[int, int, int], box: int, count: int, seed: int) -> None:
    """Against np.pad of the whole volume."""
    grid = prepared(shape, seed)
    middle = np.random.default_rng(seed).integers(0, shape, (count, 3))
    padded = np.pad(grid.slab(0, shape[0]), box)
    seen = np.zeros(count, int)
    for chosen, boxes in cut_boxes(grid, middle, box):
        for k, cut in zip(chosen, boxes, strict=True):
            start = middle[k] - box // 2 + box
            np.testing.assert_array_equal(cut, padded[tuple(slice(s, s + box) for s in start)])
            seen[k] += 1
    assert (seen == 1).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), height=st.sampled_from([16, 32, 48]))
def test_half_planes_are_a_turned_volume(seed: int, height: int) -> None:
    """A linear function of the place is sampled without error, so it tells where every value comes from."""
    rng = np.random.default_rng(seed)
    side = box_size(height)
    slope, centre = rng.normal(size=3), rng.uniform(-0.5, 0.5, 3)
    z, y, x = np.indices((side, side, side)) - side // 2
    box = torch.from_numpy((slope[0] * z + slope[1] * y + slope[2] * x).astype(np.float32))
    frame = axis_frames(rng.normal(size=(1, 3)))
    planes = cylindrical_sections(box[None], centre[None], frame, height)[0].numpy()
    assert planes.shape == (AZIMUTHS, height, height // 2)
    angle = 2 * np.pi * np.arange(AZIMUTHS) / AZIMUTHS
    axis, across, quarter = frame[0]
    for k, row, column in zip(*(rng.integers(n, size=20) for n in planes.shape), strict=True):
        away = np.cos(angle[k]) * across + np.sin(angle[k]) * quarter
        place = centre + (row - height * 5 // 12) * axis + (column + 0.5) * away
        if np.abs(place).max() < side // 2 - 1:
            np.testing.assert_allclose(planes[k, row, column], slope @ place, atol=1e-3)


@given(seed=st.integers(0, 999))
def test_what_leans_from_an_axis_is_told_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames, lean = axis_frames(rng.normal(size=(9, 3))), rng.uniform(-2, 2, (9, 2))
    axes = correct_axis(frames, lean)
    np.testing.assert_allclose(np.linalg.norm(axes, axis=1), 1)
    np.testing.assert_allclose(
        (axes * frames[:, 0]).sum(axis=1), np.cos(np.linalg.norm(lean, axis=1)), atol=1e-12
    )
    np.testing.assert_allclose(axis_correction(axes, frames), lean, atol=1e-6)
    np.testing.assert_allclose(axis_correction(3 * axes, 0.5 * frames), lean, atol=1e-6)
    np.testing.assert_array_equal(correct_axis(frames, np.zeros((9, 2))), frames[:, 0])
    np.testing.assert_allclose(axis_correction(frames[:, 0], frames), 0, atol=1e-12)


def test_what_is_seen_stretched_along_its_axis_leans_less() -> None:
    """A frame of longer steps along the axis shows an axis at 45 degrees as a steeper one."""
    frames = axis_frames(np.array([[1.0, 0.0, 0.0]]))
    axis = frames[:, 0] + frames[:, 1]
    half = axis_correction(axis, frames * np.array([0.5, 1.0, 1.0])[:, None])
    np.testing.assert_allclose(half, [[np.arctan(0.5), 0]])


@given(seed=st.integers(0, 999))
def test_frames_are_square_and_right_handed(seed: int) -> None:
    axis = np.random.default_rng(seed).normal(size=(7, 3))
    frames = axis_frames(axis)
    np.testing.assert_allclose(frames @ frames.transpose(0, 2, 1), np.tile(np.eye(3), (7, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(frames), 1)
    np.testing.assert_allclose((frames[:, 0] * axis).sum(axis=1), np.linalg.norm(axis, axis=1), rtol=1e-12)


def test_an_axial_network_is_blind_to_a_turn_and_turns_what_points_sideways() -> None:
    torch.manual_seed(2)
    module = AxialNet((2, 3, 4, 4), 8, HEIGHT).eval()
    planes = torch.randn(5, AZIMUTHS, HEIGHT, HEIGHT // 2)
    with torch.inference_mode():
        straight, turned = module(planes), module(planes.roll(AZIMUTHS // 4, dims=1))
    torch.testing.assert_close(turned[:, :2], straight[:, :2])
    for across, quarter in ((2, 3), (4, 5)):
        torch.testing.assert_close(turned[:, across], -straight[:, quarter])
        torch.testing.assert_close(turned[:, quarter], straight[:, across])
        assert straight[:, across].abs().max() > 1e-4


def test_the_two_meet_in_between() -> None:
    volume = np.random.default_rng(0).normal(scale=0.3, size=(40, 60, 60)).astype(np.float32)
    z, y, x = np.indices(volume.shape)
    volume[(z - 20) ** 2 + (y - 30) ** 2 + (x - 31) ** 2 < 4.2**2] = -8.0
    grid = PreparedTomogram.prepare(Tomogram(volume, VOXEL), voxel_size_angstrom=VOXEL)
    centres = np.array([[20.2, 30, 30.8], [21, 28, 32], [35, 10, 51]])
    *_, even = verify(grid, centres, UP, np.full(3, 0.5, np.float32), loaded(Darkest()))
    assert (even[:2] > 2.2).all()
    assert even[2] < -0.4
    given = np.array([0.1, 0.9, 0.999], np.float32)
    there, upright, both = verify(grid, centres, UP, given, loaded(Opinion(-2.0)))
    np.testing.assert_allclose(both, (1 - VERIFIER_PART) * logit(given) - 2.0 * VERIFIER_PART, rtol=1e-4)
    np.testing.assert_allclose(there, centres)
    np.testing.assert_allclose(upright, UP)
    *_, certain = verify(grid, centres, UP, np.array([0.0, 1.0, 0.5], np.float32), loaded(Opinion(0.0)))
    assert np.isfinite(certain).all()


def test_an_answer_depends_on_nothing_but_its_box() -> None:
    torch.manual_seed(0)
    model = loaded(AxialNet((2, 3, 4, 4), 8, HEIGHT))
    grid = prepared((30, 50, 40))
    rng = np.random.default_rng(1)
    centre, score = rng.uniform(0, (29, 49, 39), (37, 3)), rng.random(37).astype(np.float32)
    axis = rng.normal(size=(37, 3))
    placed, stands, together = verify(grid, centre, axis, score, model)
    order = rng.permutation(len(centre))
    placed_again, stands_again, shuffled = verify(grid, centre[order], axis[order], score[order], model)
    np.testing.assert_allclose(placed[order], placed_again, rtol=0, atol=1e-4)
    np.testing.assert_allclose(stands[order], stands_again, rtol=0, atol=1e-4)
    np.testing.assert_allclose(together[order], shuffled, rtol=0, atol=1e-5)


def test_no_candidates_are_no_work() -> None:
    nowhere = np.zeros((0, 3))
    none = np.zeros(0, np.float32)
    centre, axis, odds = verify(prepared((20, 30, 30)), nowhere, nowhere, none, loaded(Darkest()))
    assert centre.shape == axis.shape == (0, 3)
    assert odds.shape == missing_membrane_penalty(np.zeros((9, 9, 9)), nowhere, nowhere, VOXEL).shape == (0,)


def test_a_centre_is_moved_along_the_axis_in_each_look_and_stays_inside() -> None:
    grid, nothing = prepared((40, 50, 60)), np.full(2, 0.5, np.float32)
    centre = np.array([[20.0, 25.0, 30.0], [20.0, 25.0, 59.0]])
    axis = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    near, *_ = verify(grid, centre, axis, nothing, loaded(Opinion(0.0, 1.5)))
    np.testing.assert_allclose(near, [[20, 25, 30 + 1.5 * LOOKS], [20, 25, 59]])
    # A look that sees it too far off is followed part of the way.
    far, *_ = verify(grid, centre, axis, nothing, loaded(Opinion(0.0, 50.0)))
    np.testing.assert_allclose(far[0], [20, 25, min(59, 30 + LOOKS * REACH_NM * 10 / VOXEL)])


@pytest.mark.parametrize(("lean", "degrees"), [(0.0, 0.0), (0.2, math.degrees(0.2)), (3.0, REACH_DEGREES)])
def test_a_look_turns_an_axis_as_far_as_its_reach(
    lean: float, degrees: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("t3ssfast.detection.verify.LOOKS", 1)
    axis, nothing = np.array([[0.0, 0.6, 0.8]]), np.full(1, 0.5, np.float32)
    opinion = loaded(Opinion(0.0, lean=lean))
    _, turned, _ = verify(prepared((40, 50, 60)), [[20.0, 25.0, 30.0]], axis, nothing, opinion)
    # Across is the direction of the beam here.
    angle = math.radians(degrees)
    np.testing.assert_allclose(turned, [[math.sin(angle), *(math.cos(angle) * axis[0, 1:])]], atol=1e-6)


class FirstHalfPlane(nn.Module):
    """Answers the mean of the first half-plane."""

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        first = planes[:, 0].mean(dim=(1, 2))
        none = torch.zeros_like(first)
        return torch.stack([first, none, none, none, none, none], dim=1)


def test_how_sure_a_verifier_is_is_the_mean_of_its_last_look_and_the_other_views() -> None:
    grid, centres = prepared((40, 50, 60)), np.array([[20.3, 25.1, 30.7], [17.0, 22.6, 33.2]])
    frames = axis_frames(np.array([[1.0, 2.0, 3.0], [0.2, -1.0, 0.4]]))
    side = box_size(HEIGHT)
    middle = np.floor(centres + 0.5).astype(np.int64)
    ((order, boxes),) = cut_boxes(grid, middle, side)
    assert (order == [1, 0]).all()
    boxes = torch.from_numpy(boxes[order])
    seen = []
    for degrees, nm in ((0.0, 0.0), *VIEWS):
        place = centres - middle + nm * 10 / VOXEL * frames[:, 1]
        planes = cylindrical_sections(
            boxes, place, rotate_frames(frames, np.full(2, math.radians(degrees))), HEIGHT
        )
        seen.append(planes[:, 0].mean(dim=(1, 2)).numpy())
    assert np.ptp(seen, axis=0).min() > 1e-3
    *_, odds = verify(grid, centres, frames[:, 0], np.full(2, 0.5, np.float32), loaded(FirstHalfPlane()))
    np.testing.assert_allclose(odds, VERIFIER_PART * np.mean(seen, axis=0), rtol=1e-4, atol=1e-6)


@given(seed=st.integers(0, 2**32 - 1))
def test_turned_frames_keep_their_axes_and_are_turned_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames, angle = axis_frames(rng.normal(size=(4, 3))), rng.uniform(-7, 7, 4)
    turned = rotate_frames(frames, angle)
    np.testing.assert_array_equal(turned[:, 0], frames[:, 0])
    np.testing.assert_allclose((turned[:, 1] * frames[:, 1]).sum(axis=1), np.cos(angle), atol=1e-12)
    np.testing.assert_allclose((turned[:, 1] * frames[:, 2]).sum(axis=1), np.sin(angle), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turned), 1, atol=1e-12)
    np.testing.assert_allclose(rotate_frames(turned, -angle), frames, atol=1e-12)


@given(seed=st.integers(0, 2**32 - 1), voxel=st.sampled_from([9.0, 13.6, 21.0]))
@settings(max_examples=30, deadline=None)
def test_doubt_follows_from_the_distance_and_the_angle_alone(seed: int, voxel: float) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((30, 60, 80)) < rng.choice([0.0, 1e-4, 1e-2])
    centres = rng.uniform(0, (29, 59, 79), (5, 3))
    axes = rng.normal(size=(5, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    against = missing_membrane_penalty(mask.astype(np.uint8), centres, axes, voxel)
    found = np.argwhere(mask)
    for k in range(5):
        far = np.linalg.norm(found - centres[k], axis=1).min(initial=np.inf) * voxel / 10
        lost = np.clip((far - NEAR_NM) / (FAR_NM - NEAR_NM), 0, 1)
        from_beam = np.degrees(np.arccos(abs(axes[k, 0])))
        left = np.clip((from_beam - TAKEN_DEGREES) / (LEFT_DEGREES - TAKEN_DEGREES), 0, 1)
        np.testing.assert_allclose(against[k], DOUBT * lost * left, atol=1e-9)


def test_a_ball_is_found_from_beside_it() -> None:
    """The offset as a network would answer it, read off the half-planes: both looks lead to the ball."""
    volume = np.random.default_rng(0).normal(scale=0.3, size=(48, 60, 60)).astype(np.float32)
    z, y, x = np.indices(volume.shape)
    ball = np.array([24.3, 30.6, 29.2])
    volume[(z - ball[0]) ** 2 + (y - ball[1]) ** 2 + (x - ball[2]) ** 2 < 4**2] = -8.0
    grid = PreparedTomogram.prepare(Tomogram(volume, VOXEL), voxel_size_angstrom=VOXEL)
    rng = np.random.default_rng(3)
    axis = rng.normal(size=(12, 3))
    away = axis / np.linalg.norm(axis, axis=1, keepdims=True) * rng.uniform(0, 3, (12, 1))
    seen, *_ = verify(
        grid, ball + away, rng.normal(size=(12, 3)), np.full(12, 0.5, np.float32), loaded(CentreOfDark())
    )
    assert np.linalg.norm(seen - ball, axis=1).max() < 0.6


def test_a_rod_is_followed_from_an_axis_beside_it() -> None:
    volume = np.random.default_rng(0).normal(scale=0.3, size=(48, 48, 48)).astype(np.float32)
    place = np.moveaxis(np.indices(volume.shape), 0, -1) - 23.5
    rng = np.random.default_rng(5)
    for _ in range(6):
        true = rng.normal(size=3)
        true /= np.linalg.norm(true)
        rod = volume.copy()
        rod[np.linalg.norm(np.cross(place, true), axis=-1) < 2.0] = -8.0
        grid = PreparedTomogram.prepare(Tomogram(rod, VOXEL), voxel_size_angstrom=VOXEL)
        beside = correct_axis(axis_frames(true[None]), rng.uniform(-0.4, 0.4, (1, 2)))
        _, axis, _ = verify(grid, [[23.5] * 3], beside, np.full(1, 0.5, np.float32), loaded(LeanOfARod()))
        off = [np.degrees(np.arccos(np.clip(abs(a[0] @ true), 0, 1))) for a in (beside, axis)]
        assert off[1] < max(4.0, off[0] / 2)


# ------------------------------------------------------------------------------------------- in a detection


def saved(folder: Path, module: nn.Module, **changes: object) -> Path:
    path = folder / "verifier.pt"
    save_model(module, path, metadata(**changes))
    return path


def found_with(
    folder: Path, tomogram: Tomogram, module: nn.Module, membrane: np.ndarray | None = None, **config: object
) -> t3.Detection:
    segmenter, classifier = save_toy_models(folder)
    return t3.detect(
        tomogram,
        segmenter=segmenter,
        classifier=classifier,
        verifier=saved(folder, module),
        membrane=membrane,
        config=DetectConfig(**{"contrast": "dark", **config}),  # type: ignore[arg-type]
        device="cpu",
        progress=False,
    )


def test_a_verifier_has_a_say(tmp_path: Path) -> None:
    tomogram, truth, _ = toy_tomogram()
    plain = found_with(tmp_path, tomogram, Opinion(-9.0), verify=False)
    assert len(plain.candidates) == len(truth)
    assert plain.provenance["models"]["verifier"] is None
    refused = found_with(tmp_path, tomogram, Opinion(-40.0))
    assert len(refused.candidates) == 0
    assert refused.provenance["counts"]["peaks"] >= len(truth)
    agreed = found_with(tmp_path, tomogram, Opinion(2.0))
    np.testing.assert_allclose(agreed.candidates.centre_zyx, plain.candidates.centre_zyx, atol=1e-3)
    odds = (1 - VERIFIER_PART) * logit(np.clip(plain.candidates.score, 1e-4, 1 - 1e-4)) + 2.0 * VERIFIER_PART
    np.testing.assert_allclose(logit(agreed.candidates.score), odds, rtol=1e-3)
    assert agreed.provenance["models"]["verifier"]["path"].endswith("verifier.pt")


def test_what_stands_across_the_beam_where_no_membrane_was_found_is_doubted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tomogram, truth, membrane = toy_tomogram()
    place = np.moveaxis(np.indices(membrane.shape), 0, -1)
    membrane[np.linalg.norm(place - truth.centre_zyx[0], axis=-1) * VOXEL / 10 > 25] = 0
    # Axes that are along the beam, for want of a membrane, lean by a radian after one look.
    monkeypatch.setattr("t3ssfast.detection.verify.LOOKS", 1)
    odds = []
    for most in (0.0, DOUBT):
        monkeypatch.setattr("t3ssfast.detection.verify.DOUBT", most)
        found = found_with(
            *(tmp_path, tomogram, Opinion(2.0, lean=1.0)), membrane=membrane, search_distance_nm=300.0
        ).candidates
        distance = np.linalg.norm(truth.centre_zyx[:, None] - found.centre_zyx, axis=-1)
        assert (distance.min(axis=1) < 4).all()
        found = found[distance.argmin(axis=1)]
        odds.append(logit(found.score))
    expected = missing_membrane_penalty(
        membrane, found.centre_zyx.astype(np.float64), found.normal_zyx, VOXEL
    )
    assert expected[0] == 0
    assert expected.max() > 0.3 * DOUBT
    np.testing.assert_allclose(odds[0] - odds[1], expected, atol=1e-3)


def test_peaks_that_lead_to_one_centre_are_one_candidate(tmp_path: Path) -> None:
    tomogram, truth, _ = toy_tomogram()
    options = {
        "min_distance_nm": 4.0,
        "score_smoothing_nm": 0.5,
        "score_threshold": 0.01,
        "verify_floor": 0.01,
    }
    plain = found_with(tmp_path, tomogram, Opinion(0.0), verify=False, **options).candidates
    assert len(plain) > len(truth)
    moved = found_with(tmp_path, tomogram, CentreOfDark(), **options).candidates
    assert len(moved) < len(plain)
    distance = np.linalg.norm(moved.centre_zyx[:, None] - moved.centre_zyx, axis=2) * VOXEL / 10
    assert distance[~np.eye(len(moved), dtype=bool)].min() >= options["min_distance_nm"] / 2


def test_other_voxels_and_contrast_change_little(tmp_path: Path) -> None:
    tomogram, truth, _ = toy_tomogram()
    coarser, there, _ = toy_tomogram(step=1.2)
    light = Tomogram(-tomogram.data, VOXEL, "light")
    for other, known, contrast in (
        (tomogram, truth, "dark"),
        (coarser, there, "dark"),
        (light, truth, "light"),
    ):
        found = found_with(tmp_path, other, Darkest(), contrast=contrast).candidates
        evaluation = t3.evaluate(found, known, tolerance_angstrom=80.0)
        # At another voxel size the toy segmenter and the toy verifier take some membrane for more than it is.
        assert evaluation.true_positives == 3
        assert evaluation.false_positives == 0 or other is coarser


def test_the_bundled_verifier_goes_with_the_bundled_classifier_only(tmp_path: Path) -> None:
    tomogram, _, membrane = toy_tomogram()
    _, classifier = save_toy_models(tmp_path)
    config = DetectConfig(contrast="dark")
    own = t3.detect(tomogram, classifier=classifier, membrane=membrane, config=config, progress=False)
    assert own.provenance["models"]["verifier"] is None
    bundled = t3.detect(tomogram, membrane=membrane, config=config, progress=False)
    assert bundled.provenance["models"]["verifier"]["path"] == "bundled:verifier.pt"


# ---------------------------------------------------------------------------------------------- model files


def test_an_axial_network_answers_and_passes_the_gate(tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = AxialNet((2, 3, 4, 4), 8, HEIGHT).eval()
    path = saved(tmp_path, module)
    model = load_model(path, model_kind="verifier")
    planes = torch.randn(3, AZIMUTHS, HEIGHT, HEIGHT // 2)
    with torch.inference_mode():
        torch.testing.assert_close(model.module(planes), module(planes), rtol=0, atol=0)
    with pytest.raises(ModelError, match="is a verifier, not a classifier"):
        load_model(path, model_kind="classifier")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"window_px": None}, "window_px"),
        ({"window_px": 4000}, "window_px"),
        ({"window_px": 40}, "window_px"),
        ({"classes": ("background", "t3ss")}, "classes"),
        ({"output": "probabilities"}, "output"),
    ],
)
def test_metadata_of_a_verifier_are_checked(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        metadata(**changes)


def test_a_verifier_without_metadata_is_refused(tmp_path: Path) -> None:
    torch.jit.script(AxialNet((2, 3, 4, 4), 8, HEIGHT).eval()).save(tmp_path / "bare.pt")
    with pytest.raises(ModelError, match="which a verifier needs"):
        load_model(tmp_path / "bare.pt", model_kind="verifier")
    path = saved(tmp_path, Opinion(0.0), height=HEIGHT)
    assert load_model(path, model_kind="verifier").metadata.window_px == HEIGHT
    save_model(nn.Flatten(), path, metadata())
    with pytest.raises(ModelError, match="not a verifier"):
        load_model(path, model_kind="verifier")


def test_candidates_keep_their_type(tmp_path: Path) -> None:
    tomogram, _, _ = toy_tomogram()
    found = found_with(tmp_path, tomogram, Opinion(2.0)).candidates
    assert isinstance(found, Candidates)
    assert found.centre_zyx.dtype == np.float32
    assert (np.diff(found.score) <= 0).all()
