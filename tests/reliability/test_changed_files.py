"""Files that change while they are read, results of another input, and pictures that fail."""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import t3ssfast as t3
from processes import python
from t3ssfast.detection import folder as detection_folder
from t3ssfast.detection import run_to_folder
from t3ssfast.detection.result import PICTURES, PROBABILITY_FILE
from t3ssfast.detection.run import Run
from t3ssfast.errors import OutputError, PictureWarning, ReadError
from t3ssfast.io.watched_files import WatchedFiles
from toy import VOXEL, save_toy_models, save_toy_verifier, toy_detect, toy_tomogram

OPTIONS = {"device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    segmenter, classifier = save_toy_models(tmp_path_factory.mktemp("models"))
    return {"segmenter": segmenter, "classifier": classifier}


@pytest.fixture
def tomogram(tmp_path):
    """A file with a small toy tomogram."""
    data = toy_tomogram((16, 112, 120))[0].data
    t3.write(tmp_path / "TS_01.mrc", data, VOXEL)
    return tmp_path / "TS_01.mrc"


def truncate(path):
    os.truncate(path, 5000)


def replace_file(path):
    shutil.copy(path, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def write_in_place(path):
    with open(path, "r+b") as file:
        file.seek(3000)
        file.write(b"\x00\x00\x80\x3f")
    os.utime(path, ns=(1, 1))


def write_and_restore_the_time(path):
    before = os.stat(path)
    write_in_place(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES = {
    truncate: "its size went from",
    replace_file: "another file took its place",
    write_in_place: "it was written to",
    os.unlink: "it cannot be reached",
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("slab", [0, 4])
def test_a_file_that_changes_while_it_is_read_is_refused(
    tomogram, models, tmp_path, monkeypatch, change, slab
):
    original, count = Run.read_slab, iter(range(1000))

    def read_slab(self, grid, z0, z1):
        if next(count) == slab:
            change(tomogram)
        return original(self, grid, z0, z1)

    monkeypatch.setattr(Run, "read_slab", read_slab)
    config = t3.DetectConfig(contrast="dark", slab_slices=2, threads=1)
    with pytest.raises(ReadError, match=rf"TS_01\.mrc: changed while it was read: {CHANGES[change]}"):
        run_to_folder(tmp_path / "out", tomogram, config=config, **models, **OPTIONS)
    assert not (tmp_path / "out" / "provenance.json").exists()


@pytest.mark.parametrize("stage", ["contrast_from_segmenter", "score_poses"])
def test_a_file_that_is_truncated_between_two_slices_is_refused(
    tomogram, models, tmp_path, monkeypatch, stage
):
    module = "t3ssfast.detection.segment" if stage.startswith("contrast") else "t3ssfast.detection.pipeline"
    original = getattr(importlib.import_module(module), stage)

    def call(*arguments):
        truncate(tomogram)
        return original(*arguments)

    monkeypatch.setattr(f"{module}.{stage}", call)
    with pytest.raises(ReadError, match="its size went from"):
        toy_detect(tomogram, models, verifier=save_toy_verifier(tmp_path))


@pytest.mark.parametrize("change", [write_in_place, write_and_restore_the_time])
def test_a_file_changed_after_the_last_slab_is_refused(tomogram, models, monkeypatch, change):
    original = detection_folder.run_pipeline.__globals__["describe_detection"]

    def describe(*arguments):
        change(tomogram)
        return original(*arguments)

    monkeypatch.setitem(detection_folder.run_pipeline.__globals__, "describe_detection", describe)
    with pytest.raises(ReadError, match="changed while it was read"):
        toy_detect(tomogram, models)


def test_the_file_behind_an_opened_tomogram_and_a_mask_are_watched(tomogram, models, tmp_path, monkeypatch):
    opened, mask = t3.read(tomogram), tmp_path / "mask.mrc"
    t3.write(mask, np.ones(opened.shape, np.int8), VOXEL)
    original = Run.read_slab
    for path, given in (
        (tomogram, {}),
        (mask, {"search_mask": mask}),
        (mask, {"search_mask": t3.read(mask).data}),
    ):

        def read_slab(self, grid, z0, z1, path=path):
            os.utime(path)
            return original(self, grid, z0, z1)

        monkeypatch.setattr(Run, "read_slab", read_slab)
        with pytest.raises(ReadError, match=rf"{path.name}: changed"):
            toy_detect(opened, models, **given)


def test_files_that_are_read_or_renamed_elsewhere_may_be_used(tomogram, tmp_path):
    (tmp_path / "zarr" / "0").mkdir(parents=True)
    (tmp_path / "zarr" / "0" / "a").write_text("a")
    watched = WatchedFiles([tomogram, tmp_path / "zarr", tmp_path / "missing"])
    tomogram.read_bytes()
    os.link(tomogram, tmp_path / "second_name.mrc")
    watched.check_all(lambda path: True)
    with pytest.raises(ReadError, match="its content is another"):
        watched.check_all(lambda path: False)
    (tmp_path / "zarr" / "0" / "b").write_text("b")
    watched.check()
    with pytest.raises(ReadError, match="files in it were added"):
        watched.check_all(lambda path: True)


def test_results_of_another_tomogram_are_not_replaced(tomogram, models, tmp_path):
    other, out = tmp_path / "TS_02.mrc", tmp_path / "out"
    shutil.copy(tomogram, other)
    first, _ = run_to_folder(out, tomogram, **models, **OPTIONS)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for again in (
        lambda: run_to_folder(out, other, **models, **OPTIONS),
        lambda: toy_detect(other, models).save(out),
    ):
        with pytest.raises(OutputError, match=r"finished results of another tomogram, .*TS_01\.mrc.*--force"):
            again()
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    # The same tomogram may be searched again, from another place and with other options.
    (tmp_path / "moved").mkdir()
    moved = shutil.move(tomogram, tmp_path / "moved" / "TS_01.mrc")
    assert run_to_folder(out, moved, **models, **OPTIONS)[1] is False
    lower = t3.DetectConfig(score_threshold=0.1)
    assert run_to_folder(out, moved, config=lower, **models, **OPTIONS)[1] is True
    first.save(out)
    assert run_to_folder(out, other, force=True, **models, **OPTIONS)[1] is True
    toy_detect(moved, models).save(out, force=True)
    assert "TS_01" in (out / "candidates.star").read_text()


def test_files_of_the_replaced_result_do_not_stay(tomogram, models, tmp_path):
    other, out = tmp_path / "TS_02.mrc", tmp_path / "out"
    shutil.copy(tomogram, other)

    def draw(detection):
        for name in PICTURES:
            (out / name).touch()

    extra = {PROBABILITY_FILE, *PICTURES}
    run_to_folder(out, tomogram, save_probability=True, draw=draw, **models, **OPTIONS)
    assert extra <= {path.name for path in out.iterdir()}
    lower = t3.DetectConfig(score_threshold=0.1)
    run_to_folder(out, tomogram, config=lower, **models, **OPTIONS)
    assert not extra & {path.name for path in out.iterdir()}
    # The membrane is that of another tomogram now, unless it is the mask.
    classifier = {"classifier": models["classifier"], **OPTIONS}
    mask = np.ones(t3.read(other).shape, np.uint8)
    run_to_folder(out, other, membrane=out / "membrane.mrc", force=True, **classifier)
    assert (out / "membrane.mrc").exists()
    run_to_folder(out, tomogram, membrane=mask, force=True, **classifier)
    assert not (out / "membrane.mrc").exists()


def test_pictures_cannot_fail_a_result(tomogram, models, tmp_path):
    def draw(detection):
        assert (tmp_path / "out" / "provenance.json").exists()
        raise ValueError("no\nfont.")

    with pytest.warns(
        PictureWarning, match=r"could not be drawn \(no font\); the other results are complete"
    ):
        _, is_new = run_to_folder(tmp_path / "out", tomogram, draw=draw, **models, **OPTIONS)
    assert is_new
    assert run_to_folder(tmp_path / "out", tomogram, draw=draw, **models, **OPTIONS)[1] is False


@pytest.mark.parametrize("backend", ["inline", "qtagg"])
def test_the_backend_of_a_notebook_does_not_matter(tmp_path: Path, backend: str) -> None:
    script = f"""
        import os
        os.environ["MPLBACKEND"] = {backend!r}
        import numpy as np, t3ssfast as t3
        from t3ssfast.plotting import draw_candidates
        volume = t3.Tomogram(np.random.default_rng(0).normal(size=(3, 40, 40)), 10.0)
        found = t3.Candidates(np.ones((1, 3)), [1.0], [[1.0, 0, 0]], 10.0, volume.shape)
        draw_candidates({str(tmp_path / "a.png")!r}, volume, found)
        assert os.environ["MPLBACKEND"] == {backend!r}
        """
    run = python(script, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
