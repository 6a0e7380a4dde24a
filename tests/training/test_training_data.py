"""Preparation and validation of training data and options."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from training_toys import CLASSIFIER, VERIFIER

from t3ssfast.errors import ConfigError, DeviceError, InputError
from t3ssfast.training import train_classifier, train_segmenter, train_verifier
from t3ssfast.training.data import prepare_tomograms, split_tomograms
from t3ssfast.training.options import ClassifierOptions, make_options

OPTIONS = make_options(ClassifierOptions, CLASSIFIER)


def test_whole_tomograms_are_held_out(sheets):
    tomograms, membranes, picks = sheets
    prepared = prepare_tomograms(tomograms, membranes, picks, OPTIONS)
    training, held_out = split_tomograms(prepared, OPTIONS)
    assert len(training) == 2
    assert len(held_out) == 1
    assert all(held_out[0] is not tomogram for tomogram in training)
    training, held_out = split_tomograms(prepared[:1], OPTIONS)
    # The last slices, from where there is a T3SS to validate with.
    assert training[0].z1 == held_out[0].z0 == 6


def test_single_tomogram_with_few_picks_keeps_one_to_validate_with(sheets):
    only = prepare_tomograms(*(part[:1] for part in sheets), OPTIONS)[0]
    low = replace(only, targets_zyx=np.array([[1.0, 14, 36], [4.0, 38, 36]]))
    training, held_out = split_tomograms([low], OPTIONS)
    assert training[0].z1 == held_out[0].z0 == 4
    assert held_out[0].in_slices(low.targets_zyx).tolist() == [False, True]
    assert training[0].in_slices(low.targets_zyx).tolist() == [True, False]


def test_picks_of_another_binning_are_rescaled(sheets):
    tomograms, _, picks = sheets
    chosen = picks[0]
    finer = replace(chosen, centre_zyx=(chosen.centre_zyx + 0.5) * 4 - 0.5, voxel_size_angstrom=13.6 / 4)
    a, b = (prepare_tomograms(tomograms[:1], None, [p], OPTIONS)[0] for p in (chosen, finer))
    np.testing.assert_allclose(a.targets_zyx, b.targets_zyx, atol=1e-4)


def test_invalid_input_of_segmenter_is_reported(tmp_path, sheets):
    tomograms, membranes, _ = sheets
    out = tmp_path / "x.pt"
    with pytest.raises(InputError, match="no tomogram"):
        train_segmenter([], [], out)
    with pytest.raises(InputError, match="2 membranes for 3 tomograms"):
        train_segmenter(tomograms, membranes[:2], out)
    with pytest.raises(InputError, match="empty"):
        train_segmenter(tomograms, [m * 0 for m in membranes], out)
    with pytest.raises(InputError, match="shape"):
        train_segmenter(tomograms, [m[1:] for m in membranes], out)
    with pytest.raises(DeviceError, match="nowhere"):
        train_segmenter(tomograms, membranes, out, device="nowhere")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stepz": 3}, "'stepz'"),
        ({"slices": 4}, "slices is 4; give an odd number up to 15"),
        ({"patch_px": 100}, "patch_px"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"membrane_share": 2}, "SegmenterOptions.membrane_share is 2; give a fraction from 0 to 1"),
    ],
)
def test_invalid_options_are_reported(tmp_path, sheets, options, message):
    tomograms, membranes, _ = sheets
    with pytest.raises(ConfigError, match=message):
        train_segmenter(tomograms, membranes, tmp_path / "x.pt", **options)


def test_invalid_input_of_classifier_is_reported(tmp_path, sheets):
    tomograms, membranes, picks = sheets
    out = tmp_path / "x.pt"
    others = [replace(p, kind=np.array(["gold_bead"] * len(p))) for p in picks]
    with pytest.raises(InputError, match="no T3SS"):
        train_classifier(tomograms, others, membranes, out, **CLASSIFIER)
    outside = [replace(p, centre_zyx=p.centre_zyx + 100) for p in picks]
    with pytest.raises(InputError, match="outside toy_0"):
        train_classifier(tomograms, outside, membranes, out, **CLASSIFIER)


def test_invalid_input_of_verifier_is_reported(tmp_path, balls):
    tomograms, picks, candidates = balls
    out = tmp_path / "x.pt"
    with pytest.raises(InputError, match="no false candidate"):
        train_verifier(tomograms, picks, picks, out, **VERIFIER)
    with pytest.raises(InputError, match="no T3SS"):
        train_verifier(tomograms, [p[:0] for p in picks], candidates, out, **VERIFIER)
    with pytest.raises(InputError, match="candidates of 1 tomograms for 5"):
        train_verifier(tomograms, picks, candidates[:1], out, **VERIFIER)
