"""Training of a verifier that tells several kinds of particles apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_toys import VERIFIER

from t3ssfast.errors import ConfigError, InputError, ModelError
from t3ssfast.models import AxialKindNet, load_model
from t3ssfast.training import train_verifier
from t3ssfast.training.options import VerifierOptions, make_options
from t3ssfast.training.verifier import _label_loss

KINDS = ("t3ss", "flagellar_motor")
FEW = VERIFIER | {"steps": 4, "steps_per_epoch": 2, "progress": False, "contrast": "dark"}


@pytest.fixture
def mixed(balls):
    """The balls, of which the second of each tomogram is a flagellar motor."""
    tomograms, picks, candidates = balls
    kinds = [np.array(["t3ss", "flagellar_motor", *known.kind[2:]]) for known in picks]
    return tomograms, [replace(p, kind=k) for p, k in zip(picks, kinds, strict=True)], candidates


def answers(path, sections):
    with torch.inference_mode():
        return load_model(path, model_kind="verifier").module(sections)


def test_only_kinds_are_learned_where_the_rest_is_to_stay(tmp_path, balls, mixed):
    start = train_verifier(*balls, tmp_path / "v.pt", **FEW)
    options = {"kinds": KINDS, "kinds_only": True, "positive_share": 0.6}
    told = train_verifier(*mixed, tmp_path / "k.safetensors", start=start, **FEW | options)
    model = load_model(told, model_kind="verifier")
    assert model.metadata.kinds == KINDS
    assert isinstance(model.module, AxialKindNet)
    assert 0 <= model.metadata.metrics["average_precision_flagellar_motor"] <= 1
    sections = torch.randn(4, 12, 16, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(answers(told, sections)[:, [0, 2, 3, 4, 5, 6]], answers(start, sections))
    # Fine-tuning on picks of T3SS alone keeps the kinds.
    tuned = train_verifier(*balls, tmp_path / "t.safetensors", start=told, **FEW)
    assert load_model(tuned, model_kind="verifier").metadata.kinds == KINDS
    with pytest.raises(ModelError, match="apart"):
        train_verifier(*mixed, tmp_path / "n.pt", start=told, kinds=KINDS[::-1], **FEW)


def test_every_kind_needs_picks(tmp_path, balls, mixed):
    path = train_verifier(*mixed, tmp_path / "k.pt", kinds=KINDS, **FEW)
    assert load_model(path, model_kind="verifier").metadata.kinds == KINDS
    with pytest.raises(InputError, match="flagellar_motor"):
        train_verifier(*balls, tmp_path / "n.pt", kinds=KINDS, **FEW)
    with pytest.raises(ConfigError, match="start"):
        train_verifier(*mixed, tmp_path / "n.pt", kinds=KINDS, kinds_only=True, **FEW)
    for options in ({"kinds": ()}, {"kinds": ("t3ss", "t3ss")}, {"kinds_only": True}):
        with pytest.raises(ConfigError, match="kinds"):
            make_options(VerifierOptions, options)


def test_loss_of_false_candidates_that_may_be_of_an_unlabelled_kind():
    logits = torch.tensor([[3.0, -2.0], [-1.0, 4.0], [-1.0, -2.0]])
    label = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    weight = torch.cat([logits.exp(), torch.ones(3, 1)], dim=1)
    share = weight / weight.sum(dim=1, keepdim=True)
    labelled = -torch.stack([share[0, 0], share[1, 2], share[2, 2]]).log().mean()
    torch.testing.assert_close(_label_loss(logits, label, []), labelled)
    unlabelled = -torch.stack([share[0, 0], share[1, 1:].sum(), share[2, 1:].sum()]).log().mean()
    torch.testing.assert_close(_label_loss(logits, label, [1]), unlabelled)
    alone = _label_loss(logits[:, :1], label[:, :1], [])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, :1], label[:, :1])
    torch.testing.assert_close(alone, expected)
