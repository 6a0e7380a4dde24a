"""The second look: where boxes are cut, what is made of the answers, and what a detection does with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit
from torch import nn

import t3ssfast as t3
from t3ssfast.errors import ModelError
from t3ssfast.models import BOX_ANSWERS, BoxNet, LoadedModel, ModelMetadata, load_model, save_model
from t3ssfast.normalise import PreparedTomogram
from t3ssfast.types import Candidates, DetectConfig, Tomogram
from t3ssfast.verify import VERIFIER_PART, cut_boxes, verify
from toy import VOXEL, save_toy_models, toy_tomogram

BOX = 16


class Darkest(nn.Module):
    """Sure where the middle of a box is dark; the centre lies where the darkness does."""

    def __init__(self, box: int = BOX, level: float = -2.0) -> None:
        super().__init__()
        self.box, self.level = box, level

    def forward(self, boxes: torch.Tensor) -> torch.Tensor:
        dark = torch.clamp(-boxes[:, 0] - 3.0, min=0.0)
        total = dark.sum(dim=(1, 2, 3)) + 1e-3
        place = torch.arange(self.box, dtype=torch.float32) - self.box // 2
        offsets = [
            (dark.sum(dim=(2, 3)) * place).sum(dim=1) / total,
            (dark.sum(dim=(1, 3)) * place).sum(dim=1) / total,
            (dark.sum(dim=(1, 2)) * place).sum(dim=1) / total,
        ]
        logit = (total - 60.0) / 20
        return torch.stack([logit, offsets[0], offsets[1], offsets[2]], dim=1)


class Opinion(nn.Module):
    """The same answer whatever it sees."""

    def __init__(self, logit: float, offset: float = 0.0) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.tensor([logit, offset, 0.0, 0.0]))

    def forward(self, boxes: torch.Tensor) -> torch.Tensor:
        return self.answer.expand(boxes.shape[0], 4)


def metadata(box: int = BOX, **changes: object) -> ModelMetadata:
    given = {"voxel_size_angstrom": VOXEL, "window_px": box, "classes": BOX_ANSWERS, **changes}
    return ModelMetadata("verifier", **given)  # type: ignore[arg-type]


def loaded(module: nn.Module, box: int = BOX) -> LoadedModel:
    return LoadedModel(module.eval(), metadata(box), "", "<test>")


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
    """Against np.pad's reflection of the whole volume."""
    grid = prepared(shape, seed)
    middle = np.random.default_rng(seed).integers(0, shape, (count, 3))
    # Beyond two axes' ends NumPy's reflection and ours go on alike, to and fro.
    padded = np.pad(grid.slab(0, shape[0]), box, mode="reflect")
    seen = np.zeros(count, int)
    for chosen, boxes in cut_boxes(grid, middle, box):
        for k, cut in zip(chosen, boxes, strict=True):
            start = middle[k] - box // 2 + box
            np.testing.assert_array_equal(cut, padded[tuple(slice(s, s + box) for s in start)])
            seen[k] += 1
    assert (seen == 1).all()


def test_the_two_meet_in_between() -> None:
    volume = np.random.default_rng(0).normal(scale=0.3, size=(40, 60, 60)).astype(np.float32)
    z, y, x = np.indices(volume.shape)
    volume[(z - 20) ** 2 + (y - 30) ** 2 + (x - 31) ** 2 < 4.2**2] = -8.0
    grid = PreparedTomogram.prepare(Tomogram(volume, VOXEL), voxel_size_angstrom=VOXEL)
    centres = np.array([[20.2, 30, 30.8], [21, 28, 32], [35, 10, 51]])
    even = verify(grid, centres, np.full(3, 0.5, np.float32), loaded(Darkest()))
    assert (even[:2] > 0.9).all()
    assert even[2] < 0.4
    given = np.array([0.1, 0.9, 0.999], np.float32)
    both = verify(grid, centres, given, loaded(Opinion(-2.0)))
    np.testing.assert_allclose(
        logit(both), (1 - VERIFIER_PART) * logit(given) - 2.0 * VERIFIER_PART, rtol=1e-4
    )
    certain = verify(grid, centres, np.array([0.0, 1.0, 0.5], np.float32), loaded(Opinion(0.0)))
    assert np.isfinite(logit(certain)).all()


def test_an_answer_depends_on_nothing_but_its_box() -> None:
    torch.manual_seed(0)
    model = loaded(BoxNet((2, 3, 4, 4), 8, BOX))
    grid = prepared((30, 50, 40))
    rng = np.random.default_rng(1)
    centre, score = rng.uniform(0, (29, 49, 39), (37, 3)), rng.random(37).astype(np.float32)
    together = verify(grid, centre, score, model)
    order = rng.permutation(len(centre))
    shuffled = verify(grid, centre[order], score[order], model)
    np.testing.assert_allclose(together[order], shuffled, rtol=0, atol=1e-5)


def test_no_candidates_are_no_work() -> None:
    none = np.zeros(0, np.float32)
    assert verify(prepared((20, 30, 30)), np.zeros((0, 3)), none, loaded(Darkest())).shape == (0,)


# ------------------------------------------------------------------------------------------- in a detection


def saved(folder: Path, module: nn.Module, **changes: object) -> Path:
    path = folder / "verifier.pt"
    save_model(module, path, metadata(**changes))
    return path


def found_with(folder: Path, tomogram: Tomogram, module: nn.Module, **config: object) -> t3.Detection:
    segmenter, classifier = save_toy_models(folder)
    return t3.detect(
        tomogram,
        segmenter=segmenter,
        classifier=classifier,
        verifier=saved(folder, module),
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
    np.testing.assert_array_equal(agreed.candidates.centre_zyx, plain.candidates.centre_zyx)
    odds = (1 - VERIFIER_PART) * logit(np.clip(plain.candidates.score, 1e-4, 1 - 1e-4)) + 2.0 * VERIFIER_PART
    np.testing.assert_allclose(logit(agreed.candidates.score), odds, rtol=1e-3)
    assert agreed.provenance["models"]["verifier"]["path"].endswith("verifier.pt")


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


def test_a_box_network_answers_and_passes_the_gate(tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = BoxNet((2, 3, 4, 4), 8, BOX).eval()
    path = saved(tmp_path, module)
    model = load_model(path, kind="verifier")
    boxes = torch.randn(3, 1, BOX, BOX, BOX)
    with torch.inference_mode():
        torch.testing.assert_close(model.module(boxes), module(boxes), rtol=0, atol=0)
    with pytest.raises(ModelError, match="is a verifier, not a classifier"):
        load_model(path, kind="classifier")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"window_px": None}, "window_px"),
        ({"window_px": 4000}, "window_px"),
        ({"classes": ("background", "t3ss")}, "classes"),
        ({"output": "probabilities"}, "output"),
    ],
)
def test_metadata_of_a_verifier_are_checked(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        metadata(**changes)


def test_a_verifier_without_metadata_is_refused(tmp_path: Path) -> None:
    torch.jit.script(BoxNet((2, 3, 4, 4), 8, BOX).eval()).save(tmp_path / "bare.pt")
    with pytest.raises(ModelError, match="how large its boxes are"):
        load_model(tmp_path / "bare.pt", kind="verifier")
    path = saved(tmp_path, Opinion(0.0), box=BOX)
    assert load_model(path, kind="verifier").metadata.window_px == BOX
    save_model(nn.Flatten(), path, metadata())
    with pytest.raises(ModelError, match="not a verifier"):
        load_model(path, kind="verifier")


def test_candidates_keep_their_type(tmp_path: Path) -> None:
    tomogram, _, _ = toy_tomogram()
    found = found_with(tmp_path, tomogram, Opinion(2.0)).candidates
    assert isinstance(found, Candidates)
    assert found.centre_zyx.dtype == np.float32
    assert (np.diff(found.score) <= 0).all()
