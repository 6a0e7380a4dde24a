"""Training windows of the classifier, and mining of hard negatives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from training_toys import CLASSIFIER

from t3ssfast.detection.preselect import CoarseScan
from t3ssfast.models import load_model
from t3ssfast.training import negatives, train_classifier
from t3ssfast.training.calibrate import update_metadata
from t3ssfast.training.data import prepare_tomograms
from t3ssfast.training.options import ClassifierOptions, make_options
from t3ssfast.training.windows import WindowPool, cut_out

OPTIONS = make_options(ClassifierOptions, CLASSIFIER)


def test_windows_are_centred_on_their_positions(sheets):
    tomogram = prepare_tomograms(*(part[:1] for part in sheets), OPTIONS)[0]
    positions = np.array([[4, 30, 40], [0, 0, 0], [9, 71, 3]])
    cut = cut_out([tomogram], [positions], OPTIONS)
    middle = cut.shape[-1] // 2
    slab = tomogram.prepared.slab(0, 10).astype(np.float16)
    for k, (z, y, x) in enumerate(positions):
        assert cut[k, middle, middle] == slab[z, y, x]
    windows, classes = WindowPool(cut[:1], cut[1:2], cut[2:], cut[:0]).all_windows(OPTIONS)
    np.testing.assert_array_equal(windows[0, 0], slab[4, 30 - 12 : 30 + 12, 40 - 12 : 40 + 12])
    assert classes.tolist() == [1, 0, 0]


def test_mined_windows_score_high_and_are_not_particles(sheets, monkeypatch):
    tomogram = prepare_tomograms(*(part[:1] for part in sheets), OPTIONS)[0]

    def score_dark_voxels(slab, region, model, *, device):
        index = np.flatnonzero(region)
        return index, np.clip(-slab.ravel()[index] / 6, 0, 1)

    class Model:
        device = "cpu"

    monkeypatch.setattr(negatives, "classify_slab", score_dark_voxels)
    options = replace(OPTIONS, mined_slices=10, search_distance_nm=5.0)
    found = negatives.mine_negatives(Model(), [tomogram], options, np.random.default_rng(0))[0]
    assert 0 < len(found) <= options.mined_per_tomogram
    distance = np.linalg.norm(found[:, None] - tomogram.targets_zyx[None], axis=2) * 1.36
    assert distance.min() > options.negative_distance_nm
    # The highest score is in the ball that is picked as another kind.
    assert np.linalg.norm(found[0] - tomogram.others_zyx[0]) < 6
    assert abs(found[:, 2] - 36).max() * 1.36 < 5.0 + 2 * 1.36


def test_coarse_scan_of_the_starting_model_is_kept(tmp_path, sheets):
    tomograms, membranes, picks = sheets
    options = CLASSIFIER | {"rounds": 0, "steps": 2}
    path = train_classifier(tomograms, picks, membranes, tmp_path / "a.pt", **options)
    scan = CoarseScan(5, 3, 0.2).to_dict()
    update_metadata(path, "classifier", preselect=scan)
    train_classifier(tomograms, picks, membranes, tmp_path / "b.pt", start=path, **options)
    assert load_model(tmp_path / "b.pt", model_kind="classifier").metadata.preselect == scan
