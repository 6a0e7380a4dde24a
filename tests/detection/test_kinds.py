"""Kinds of particles within a detection: which are reported, and with which scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.special import logit
from torch import nn

import t3ssfast as t3
from t3ssfast.candidates import Candidates
from t3ssfast.detection.assemble import calibrate_scores
from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.membrane_sites import SPACING_NM, membrane_sites
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.propose import MIN_LOG_ODDS
from t3ssfast.detection.tell_kinds import tell_kinds
from t3ssfast.detection.verify import VERIFIER_WEIGHT, approach, log_odds_of_kinds, verify
from t3ssfast.errors import ConfigError
from t3ssfast.evaluation.calibration import Calibration
from t3ssfast.models import LoadedModel, ModelMetadata, verifier_answers
from t3ssfast.tomogram import Tomogram
from toy import VOXEL, save_toy_models, toy_tomogram

HEIGHT = 16
KINDS = ("t3ss", "flagellar_motor")
CURVE = Calibration("platt", (0.0, 1.0), (0.0, 0.5), (0.5,), (0.9,), (0.9,))


class FixedLogits(nn.Module):
    """The same logits for every candidate."""

    def __init__(self, of_t3ss: float, of_motor: float) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.tensor([of_t3ss, of_motor, 0.0, 0.0, 0.0, 0.0, 0.0]))

    def forward(self, sections: torch.Tensor) -> torch.Tensor:
        return self.answer.expand(sections.shape[0], 7)


def verifier(of_t3ss: float, of_motor: float, **changes: object) -> LoadedModel:
    metadata = ModelMetadata("verifier", VOXEL, HEIGHT, classes=verifier_answers(KINDS))
    return LoadedModel(FixedLogits(of_t3ss, of_motor), replace(metadata, **changes), "sha", "toy")  # type: ignore[arg-type]


def test_log_odds_are_those_of_a_softmax_with_none_of_the_kinds() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (7, 3))
    weight = np.exp(np.pad(logits, ((0, 0), (0, 1))))
    probability = (weight / weight.sum(axis=1, keepdims=True))[:, :3]
    np.testing.assert_allclose(log_odds_of_kinds(logits), np.log(probability / (1 - probability)))
    np.testing.assert_allclose(log_odds_of_kinds(logits[:, :1]), logits[:, :1])


@pytest.mark.parametrize(
    ("of_t3ss", "of_motor", "score", "kind", "log_odds"),
    [
        # The verifier alone decides where it sees a motor, however high the classifier's score.
        (5.0, 6.0, 0.999, 1, 6.0 - np.logaddexp(0, 5.0)),
        # Where it sees none of them, the classifier's score counts for T3SS.
        (-1.0, -0.5, 0.99, 0, (1 - VERIFIER_WEIGHT) * logit(0.99) - VERIFIER_WEIGHT),
        (-1.0, -0.5, 0.01, 1, -0.5 - np.logaddexp(0, -1.0)),
        # Motors do not lower the score of a T3SS.
        (3.0, 2.0, 0.5, 0, VERIFIER_WEIGHT * 3.0),
    ],
)
def test_kind_and_log_odds(of_t3ss, of_motor, score, kind, log_odds) -> None:
    noise = Tomogram(np.random.default_rng(0).normal(size=(30, 40, 40)).astype(np.float32), VOXEL)
    grid = PreparedTomogram.prepare(noise, voxel_size_angstrom=VOXEL)
    scores = np.array([score], np.float32)
    found = verify(grid, [[15, 20, 20]], [[1.0, 0, 0]], scores, verifier(of_t3ss, of_motor))
    assert found[2].tolist() == [kind]
    np.testing.assert_allclose(found[3], [log_odds], rtol=1e-4)


class Look(nn.Module):
    """A voxel along the axis at each look, and one logit of a motor after the other."""

    def __init__(self, *of_motor: float) -> None:
        super().__init__()
        self.of_motor, self.looks = of_motor, 0

    def forward(self, sections: torch.Tensor) -> torch.Tensor:
        answer = torch.tensor([-9.0, self.of_motor[self.looks], 1.0, 0.0, 0.0, 0.0, 0.0])
        self.looks += 1
        return answer.expand(sections.shape[0], 7)


@pytest.mark.parametrize(
    ("of_motor", "looks"),
    [
        # Log-odds may fall again on the way to a particle.
        ((-4.0, -1.5, -6.0, -6.0, 3.0), 5),
        ((-4.0, -2.5, 9.0, 9.0, 9.0), 2),
        ((-5.5, 9.0, 9.0, 9.0, 9.0), 1),
    ],
)
def test_places_are_looked_at_until_they_are_hopeless(of_motor: tuple[float, ...], looks: int) -> None:
    noise = Tomogram(np.random.default_rng(0).normal(size=(30, 40, 40)).astype(np.float32), VOXEL)
    grid = PreparedTomogram.prepare(noise, voxel_size_angstrom=VOXEL)
    model = replace(verifier(0.0, 0.0), module=Look(*of_motor))
    centre, axis, log_odds = approach(grid, [[15, 20, 20]], [[0, 1.0, 0]], model, MIN_LOG_ODDS)
    assert model.fused.looks == looks
    if looks < len(MIN_LOG_ODDS):
        assert len(centre) == len(axis) == len(log_odds) == 0
    else:
        np.testing.assert_allclose(centre, [[15, 20 + looks, 20]])
        np.testing.assert_allclose(axis, [[0, 1.0, 0]])
        np.testing.assert_allclose(log_odds, [of_motor[-1]], atol=1e-3)


def test_only_the_kinds_asked_for_are_reported(tmp_path) -> None:
    segmenter, classifier = save_toy_models(tmp_path)
    tomogram, truth, _ = toy_tomogram()

    def kinds_found(model: LoadedModel, *kinds: str) -> list[str]:
        config = DetectConfig(contrast="dark", **({"kinds": kinds} if kinds else {}))
        models = {"segmenter": segmenter, "classifier": classifier, "verifier": model}
        found = t3.detect(tomogram, config=config, progress=False, **models)
        assert found.provenance["config"]["kinds"] == (kinds or ("t3ss",))
        return found.candidates.kind.tolist()

    motors, t3ss = verifier(-3.0, 4.0), verifier(4.0, -3.0)
    count = len(truth)
    assert kinds_found(t3ss) == ["t3ss"] * count
    assert kinds_found(motors) == []
    # Where motors are asked for, places along the membrane are examined, too.
    everywhere = kinds_found(motors, "all")
    assert everywhere == ["flagellar_motor"] * len(everywhere)
    assert len(everywhere) > count
    assert kinds_found(t3ss, "all") == ["t3ss"] * count
    assert kinds_found(t3ss, "flagellar_motor") == []
    with pytest.raises(ConfigError, match="secretin"):
        kinds_found(t3ss, "secretin")
    assert DetectConfig(kinds="all").kinds == ("all",)
    for wrong in ((), None, 3, ("t3ss", "")):
        with pytest.raises(ConfigError, match="kinds"):
            DetectConfig(kinds=wrong)
    told = tell_kinds(tomogram, truth, motors)
    assert told.tolist() == ["flagellar_motor"] * count
    assert tell_kinds(tomogram, truth[:0], motors).tolist() == []
    with pytest.raises(ConfigError, match="contrast"):
        tell_kinds(tomogram, truth, motors, contrast="grey")


def _distances(places: npt.NDArray[np.float64], site: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Distance of each place to the nearest site."""
    return np.asarray(cKDTree(site).query(places)[0])


@pytest.mark.parametrize("voxel_size", [8.0, 13.6, 30.0])
def test_membrane_sites_cover_the_envelope(voxel_size: float) -> None:
    nm = voxel_size / 10
    shape = np.array([80, 330, 330]) / nm
    y, x = np.indices(shape[1:].astype(int)) * nm - 165
    radius = np.hypot(y, x)
    # Inner and outer membrane of a cell of 100 nm that goes through the volume, and a vesicle.
    ring = (np.abs(radius - 100) < 2.5) | (np.abs(radius - 127) < 2.5) | (np.abs(radius - 40) < 2.5)
    mask = np.broadcast_to(ring, (int(shape[0]), *ring.shape)).astype(np.uint8)
    voxels, direction = membrane_sites(mask, voxel_size)
    assert (voxels >= 0).all()
    assert (voxels <= np.array(mask.shape) - 1).all()
    site = (voxels * nm).astype(float)
    # The faces of the volume cut the cell, and are not its top and bottom.
    assert not direction.any()
    at = np.hypot(site[:, 1] - 165, site[:, 2] - 165)
    expected = np.array([113.5, 100 - 13, 127 + 13, 40 - 13, 40 + 13])
    # Within two of the coarse voxels in which membranes are seen.
    assert np.abs(at[:, None] - expected).min(axis=1).max() < 8
    angle = np.linspace(0, 2 * np.pi, 100)
    around = np.stack([np.full(100, 0.0), np.sin(angle), np.cos(angle)], axis=1)
    for middle in expected:
        assert _distances([40.0, 165.0, 165.0] + middle * around, site).max() < SPACING_NM + 4
    # Sites beyond the last voxel are moved onto it.
    assert cKDTree(site).query(site, k=2)[0][:, 1].min() > SPACING_NM - 2
    nowhere = membrane_sites(np.zeros_like(mask), voxel_size)
    assert [part.shape for part in nowhere] == [(0, 3), (0,)]


def test_membrane_sites_cover_tops_and_bottoms_that_the_missing_wedge_removed() -> None:
    voxel_size, nm = 13.6, 1.36
    z, y, x = (np.indices((200, 200, 200)) - 99.5) * nm
    radius = np.sqrt(z * z + y * y + x * x)
    shells = (np.abs(radius - 86) < 3) | (np.abs(radius - 113) < 3)
    # Membrane is left where its normal is more than 40 degrees from the beam.
    mask = shells & (np.abs(z) < np.cos(np.radians(40)) * radius)
    voxels, direction = membrane_sites(mask.astype(np.uint8), voxel_size)
    site = (voxels.astype(float) - 99.5) * nm
    normal = np.random.default_rng(0).normal(size=(2000, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    middle = 99.5 * normal
    assert np.quantile(_distances(middle, site), 0.99) < SPACING_NM + 1
    upward = site[direction == 1]
    assert len(upward) > 20
    assert (upward[:, 0] > 0).all()
    assert (site[direction == -1, 0] < 0).all()
    # The sides, whose membrane was found, need no direction.
    equator = np.abs(site[:, 0]) < 30
    assert not direction[equator].any()
    assert equator.sum() > 100


def test_membrane_in_one_plane_has_no_caps() -> None:
    mask = np.zeros((40, 120, 120), np.uint8)
    mask[20] = 1
    voxels, direction = membrane_sites(mask, 13.6)
    assert len(voxels)
    assert np.unique(np.abs(voxels[direction == 0, 0] - 20).round()).max() <= 12


def test_scores_are_calibrated_by_kind() -> None:
    place = {"centre_zyx": np.eye(3), "normal_zyx": np.eye(3), "voxel_size_angstrom": 10.0}
    candidates = Candidates(score=[0.9, 0.8, 0.7], kind=["flagellar_motor", "t3ss", "t3ss"], **place)
    found = calibrate_scores(candidates, {"t3ss": None, "flagellar_motor": CURVE})
    np.testing.assert_allclose(found.score, [0.45, 0.8, 0.7])
    assert found.kind.tolist() == ["flagellar_motor", "t3ss", "t3ss"]
