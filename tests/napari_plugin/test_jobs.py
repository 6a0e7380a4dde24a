"""Detection and fine-tuning in a process of their own, and what can be seen of them meanwhile."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest

import t3ssfast as t3
from t3ssfast.curation.results import find_results
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.models import load_model
from t3ssfast.napari_plugin.compare import candidates_of_verdicts, comparison_text, rank
from t3ssfast.napari_plugin.jobs import Job
from t3ssfast.napari_plugin.preview import Preview
from t3ssfast.napari_plugin.worker import detect_task, train_task
from t3ssfast.runtime.checkpoint import CheckpointStore
from t3ssfast.tomogram import Tomogram
from t3ssfast.training.fine_tune import fine_tune_verifier, verified_scores
from toy import save_toy_models, save_toy_verifier, toy_tomogram


class Events(list):
    def __call__(self, event, **content):
        # As they pass between processes.
        self.append(json.loads(json.dumps({"event": event, **content})))


def wait_for_end(job, seconds=120):
    events, end = [], time.monotonic() + seconds
    while job.running and time.monotonic() < end:
        events += job.poll()
        time.sleep(0.01)
    return events


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Return a folder with the file of a tomogram, and the toy models."""
    folder = tmp_path_factory.mktemp("toy")
    tomogram, truth, _ = toy_tomogram(particles=6)
    t3.write(folder / "toy.mrc", tomogram.data, tomogram.voxel_size_angstrom)
    segmenter, classifier = save_toy_models(folder)
    return folder, {"segmenter": str(segmenter), "classifier": str(classifier)}, truth


@pytest.fixture(scope="module")
def detected(toy):
    """Return the events of a detection in a process of its own, and the folder of its results."""
    folder, models, _ = toy
    options = {"tomogram": str(folder / "toy.mrc"), "out": str(folder / "found"), "models": models}
    return wait_for_end(Job("detect", {**options, "device": "cpu"})), folder / "found"


def test_a_job_detects_and_tells_its_progress(toy, detected):
    folder, models, truth = toy
    *before, last = detected[0]
    assert last == {"event": "done", "folder": str(folder / "found"), "candidates": 6, "new": True}
    for stage in ("segment membranes", "classify windows"):
        done = [event["done"] for event in before if event.get("stage") == stage]
        assert done[-1] == 24
        assert all(event["total"] == 24 for event in before if event.get("stage") == stage)
    (results,) = find_results(folder / "found")
    assert t3.evaluate(results.candidates, truth).true_positives == 6
    again = {"tomogram": str(folder / "toy.mrc"), "out": str(folder / "found"), "models": models}
    assert detect_task(Events(), **again, device="cpu")["new"] is False


def test_a_cancelled_job_ends(toy):
    folder, models, _ = toy
    options = {"tomogram": str(folder / "toy.mrc"), "out": str(folder / "never"), "models": models}
    job = Job("detect", options)
    job.cancel()
    assert wait_for_end(job)[-1] == {"event": "cancelled"}
    assert job.poll() == []
    job.close()
    assert not (folder / "never" / "provenance.json").exists()


def test_errors_of_a_job_are_events(tmp_path):
    with pytest.raises(ConfigError, match="cannot be started"):
        Job("detect", {}, python=str(tmp_path / "no-python"))
    (event,) = wait_for_end(Job("detect", {}, python="/bin/false"))
    assert event["event"] == "failed"
    assert "code 1" in event["message"]


def test_training_on_verdicts(toy, detected, tmp_path, monkeypatch):
    _, models, _ = toy
    _, out = detected
    verifier = save_toy_verifier(tmp_path)
    (results,) = find_results(out)
    # Half of the particles are of another kind, for this person.
    label = np.where(np.arange(6) % 2 == 0, "accepted", "rejected")
    t3.save_curation(replace(results.candidates, label=label), tmp_path / "verdicts.json")
    learned = []

    def spied(*arguments, cross_validated, **options):
        path = fine_tune_verifier(*arguments, cross_validated=cross_validated, **options)
        learned.extend(cross_validated)
        return path

    monkeypatch.setattr("t3ssfast.training.fine_tune.fine_tune_verifier", spied)
    emit = Events()
    done = train_task(
        emit,
        folders=[str(out)],
        verdicts=str(tmp_path / "verdicts.json"),
        out=str(tmp_path / "tuned.pt"),
        models={**models, "verifier": str(verifier)},
        steps=2,
    )
    assert done["labels"] == label.tolist()
    assert len(done["before"]) == len(done["after"]) == done["verdicts"] == 6
    assert done["folds"] == 3
    # No score after the training is of the new file, which has learned from all verdicts.
    (some,) = learned
    tomogram, index = t3.read(toy[0] / "toy.mrc"), np.arange(len(some))
    new, start = (
        verified_scores(tomogram, some, index, load_model(path, model_kind="verifier"), 1)
        for path in (done["model"], verifier)
    )
    np.testing.assert_allclose(np.sort(done["before"]), np.sort(start), atol=1e-5)
    np.testing.assert_allclose(np.sort(done["after_uncalibrated"]), np.sort(some.score), atol=1e-5)
    assert np.abs(some.score - new).max() > 1e-4
    assert load_model(done["model"], model_kind="verifier").metadata.calibration is not None
    assert any("fine-tuning on all picks" in event["message"] for event in emit)
    before, after = (rank(done["labels"], done[name]) for name in ("before", "after"))
    text = comparison_text(before, after, folds=done["folds"], verdicts=done["verdicts"])
    assert "of 3" in text
    assert "On 6 of 6 verdicts, held out in turns" in text


def test_scores_after_a_training_are_of_models_without_the_candidate(toy, detected, tmp_path, monkeypatch):
    """A verifier that knows the verdicts by heart gains nothing in the comparison."""
    _, models, _ = toy
    (results,) = find_results(detected[1])
    label = np.where(np.arange(6) % 2 == 0, "accepted", "rejected")
    t3.save_curation(replace(results.candidates, label=label), tmp_path / "verdicts.json")

    def by_heart(tomograms, picks, out, cross_validated, **options):
        (known,) = picks
        # Its own verdict unseen, each candidate looks like one of the others.
        cross_validated.append(replace(known, score=np.where(known.label == "accepted", 0.4, 0.6)))
        return save_toy_verifier(tmp_path)

    monkeypatch.setattr("t3ssfast.training.fine_tune.fine_tune_verifier", by_heart)
    done = train_task(
        Events(),
        folders=[str(detected[1])],
        verdicts=str(tmp_path / "verdicts.json"),
        out=str(tmp_path / "tuned.pt"),
        models={**models, "verifier": str(save_toy_verifier(tmp_path))},
    )
    assert rank(done["labels"], done["after"], done["after_uncalibrated"]).area == 0
    np.testing.assert_allclose(sorted(set(done["after_uncalibrated"])), [0.4, 0.6], atol=1e-6)


def test_verdicts_find_their_candidates(make_candidates):
    found = make_candidates(4, centre_zyx=[[10, 10, 10], [50, 10, 10], [90, 10, 10], [130, 10, 10]])
    verdicts = replace(
        make_candidates(5),
        centre_zyx=np.array([[51, 10, 10], [10, 10, 10], [90, 10, 10], [200, 10, 10], [130, 10, 10]]) / 2,
        voxel_size_angstrom=27.2,
        label=["rejected", "accepted", "unsure", "accepted", ""],
    )
    rows, index = candidates_of_verdicts(verdicts, found)
    assert (rows.tolist(), index.tolist()) == ([0, 1], [1, 0])
    assert candidates_of_verdicts(verdicts, found[:0])[0].tolist() == []


def test_training_without_verdicts_says_so(detected, tmp_path):
    _, out = detected
    (results,) = find_results(out)
    t3.save_curation(results.candidates, tmp_path / "none.json")
    with pytest.raises(InputError, match="no verdict"):
        train_task(Events(), folders=[str(out)], verdicts=str(tmp_path / "none.json"), out="never.pt")


def test_ranking_of_known_scores():
    labels = ["accepted", "rejected", "accepted", "rejected"]
    perfect = rank(labels, [0.9, 0.1, 0.8, 0.6])
    assert (perfect.accepted, perfect.rejected) == (2, 2)
    assert (perfect.accepted_above, perfect.rejected_above) == (2, 1)
    assert perfect.area == 1
    assert rank(labels, [0.1, 0.9, 0.2, 0.8]).area == 0
    # Three pairs of four, and all ties.
    assert rank(labels, [0.9, 0.1, 0.5, 0.6]).area == pytest.approx(0.75)
    assert rank(labels, [0.5] * 4).area == pytest.approx(0.5)
    assert np.isnan(rank(["accepted"], [0.5]).area)
    assert rank(labels, [0.9, 0.1, 0.8, 0.6], [0.1, 0.9, 0.2, 0.8]).area == 0
    with pytest.raises(InputError, match="3 scores for 4 labels"):
        rank(labels, [1, 2, 3])


def test_finished_slabs_are_shown_before_the_end(tmp_path):
    tomogram = Tomogram(np.zeros((8, 40, 60), np.float32), 20.0)
    store = CheckpointStore(tmp_path, "a" * 64)
    preview = Preview(tmp_path, tomogram)
    assert not preview.update(4)
    levels = np.zeros((2, 20, 30), np.uint8)
    levels[1, 3:6] = 200
    store.save_slab("membrane", (0, 2), levels=levels)
    assert preview.update(4)
    assert preview.membrane.shape == (4, 20, 30)
    assert preview.membrane.sum() == 3 * 30
    assert preview.voxel_size_angstrom == 40.0
    assert not preview.update(4)
    # Two windows of one particle, another, and one of a low score, in slices 2 and 3.
    flat = np.ravel_multi_index(([0, 0, 1, 1], [5, 5, 15, 2], [7, 8, 20, 2]), (2, 20, 30))
    probability = np.float32([0.95, 0.99, 0.97, 0.3])
    store.save_slab("scores", (2, 4), near=4, index=np.uint32(flat), probability=probability)
    assert preview.update(4)
    np.testing.assert_array_equal(preview.centre_zyx, [[2, 5, 8], [3, 15, 20]])


def test_damaged_slabs_are_left_out(tmp_path):
    store = CheckpointStore(tmp_path, "b" * 64)
    store.save_slab("membrane", (0, 2), levels=np.zeros((3, 4, 4), np.uint8))
    (store.folder / "membrane-00002-00004.npz").write_bytes(b"half a file")
    preview = Preview(tmp_path, Tomogram(np.zeros((4, 4, 4), np.float32), 10.0))
    assert not preview.update(4)
    assert preview.membrane is None
