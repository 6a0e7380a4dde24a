"""Positions that contradict the file or the tomogram are refused or read in the right unit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ReadError
from t3ssfast.io.particles import export, load_all_candidates, load_candidates

SHAPE = (100, 400, 420)
INSIDE = np.array([[50, 200, 210], [20, 390, 40], [90, 30, 400]], float)


def star(path, rows, *, name="TS_9", extra=()):
    labels = ["rlnTomoName", *(f"rlnCoordinate{axis}" for axis in "XYZ"), *(label for label, _ in extra)]
    text = "data_particles\n\nloop_\n" + "".join(f"_{label}\n" for label in labels)
    for x, y, z in rows:
        text += " ".join([name, *(str(v) for v in (x, y, z)), *(str(value) for _, value in extra)]) + "\n"
    path.write_text(text)
    return path


def tomograms_star(path, name="TS_9"):
    labels = ["rlnTomoName", "rlnTomoTiltSeriesPixelSize", "rlnTomoTomogramBinning"]
    labels += [f"rlnTomoSize{axis}" for axis in "XYZ"]
    rows = f"{name} 1.5 8.0 3360 3200 800\n"
    path.write_text("data_global\n\nloop_\n" + "".join(f"_{label}\n" for label in labels) + rows)
    return path


@pytest.mark.parametrize("format", ["csv", "coords", "relion4", "imod", "dynamo"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda zyx: zyx * 12.0, "Angstrom"),
        (lambda zyx: zyx * 4, "another binning"),
        (lambda zyx: zyx * 8, "Angstrom.*or like pixels of another binning"),
        (lambda zyx: zyx[:, ::-1], "x and z look exchanged"),
        (lambda zyx: zyx + 9000, "check that they belong"),
        (lambda zyx: zyx / np.array(SHAPE), "within one voxel of the corner"),
    ],
)
def test_positions_outside_or_in_the_corner_are_refused_with_the_reason(tmp_path, format, change, reason):
    path = tmp_path / {"csv": "a.csv", "coords": "a.xyz", "imod": "a.mod", "dynamo": "a.tbl"}.get(
        format, "a.star"
    )
    wrong = Candidates(change(INSIDE), np.ones(3), np.tile([1.0, 0, 0], (3, 1)), 12.0, None, "TS_9")
    if format == "imod":
        wrong = replace(wrong, tomogram_shape=(6000, 6000, 6000))
    options = {"tilt_series_pixel_size_angstrom": 1.5} if format == "relion4" else {}
    export(wrong, path, format, **options)
    with pytest.raises(ReadError, match=reason):
        load_candidates(path, voxel_size_angstrom=12.0, tomogram_shape=SHAPE)


def test_positions_at_the_faces_are_accepted(tmp_path):
    corners = np.array([[-0.5, 0, 0], [99.5, 399.5, 419.5], [50, 412, 200]])
    export(Candidates(corners, np.ones(3), np.ones((3, 3)), 12.0), tmp_path / "a.csv", "csv")
    assert len(load_candidates(tmp_path / "a.csv", tomogram_shape=SHAPE)) == 3


def test_fractions_are_scaled_by_the_tomogram_or_refused(tmp_path):
    fractions = (INSIDE / np.array(SHAPE))[:, ::-1].tolist()
    path = star(tmp_path / "a.star", fractions, name="TS_9.tomostar")
    with pytest.raises(ReadError, match="fractions of the tomogram"):
        load_candidates(path, voxel_size_angstrom=12.0)
    found = load_candidates(path, voxel_size_angstrom=12.0, tomogram_shape=SHAPE)
    np.testing.assert_allclose(found.centre_zyx, INSIDE, atol=1e-3)
    found = load_candidates(path, tomograms=tomograms_star(tmp_path / "tomograms.star"))
    np.testing.assert_allclose(found.centre_zyx, INSIDE, atol=1e-3)
    assert found.voxel_size_angstrom == 12.0


@pytest.mark.parametrize("called", ["TS_9", "TS_9.tomostar", "/data/rec_TS_9.mrc"])
def test_coordinates_without_optics_are_pixels_of_the_tilt_series(tmp_path, called):
    tomograms = tomograms_star(tmp_path / "tomograms.star")
    pixels = (INSIDE * 8)[:, ::-1].tolist()
    shifts = [("rlnOriginX", 8), ("rlnOriginY", 0), ("rlnOriginZ", 0)]
    particles = star(tmp_path / "particles.star", pixels, name=called)
    shifted = star(tmp_path / "shifted.star", pixels, name=called, extra=shifts)
    (tmp_path / "set.star").write_text(
        "data_\n\n_rlnTomoParticlesFile particles.star\n_rlnTomoTomogramsFile tomograms.star\n"
    )
    for path, options in ((particles, {"tomograms": tomograms}), (tmp_path / "set.star", {})):
        found = load_candidates(path, **options)
        np.testing.assert_allclose(found.centre_zyx, INSIDE, atol=1e-3)
        assert (found.voxel_size_angstrom, found.tomogram_shape) == (12.0, SHAPE)
    found = load_candidates(shifted, tomograms=tomograms)
    np.testing.assert_allclose(found.centre_zyx, INSIDE - [0, 0, 1], atol=1e-3)


def test_a_tomograms_star_of_other_tomograms_is_refused(tmp_path):
    particles = star(tmp_path / "a.star", [[1, 2, 3]])
    with pytest.raises(Exception, match="none of them is in"):
        load_all_candidates(particles, tomograms=tomograms_star(tmp_path / "t.star", "other"))


def test_the_pixel_size_of_a_2d_stack_is_recognised(tmp_path):
    rows = INSIDE[:, ::-1].tolist()
    wrong = star(tmp_path / "a.star", rows, extra=[("rlnImagePixelSize", 1.5)])
    with pytest.raises(ReadError, match="2D stack"):
        load_candidates(wrong, voxel_size_angstrom=12.0, tomogram_shape=SHAPE)
    right = star(tmp_path / "b.star", (INSIDE * 8)[:, ::-1].tolist(), extra=[("rlnImagePixelSize", 1.5)])
    found = load_candidates(right, voxel_size_angstrom=12.0, tomogram_shape=SHAPE)
    np.testing.assert_allclose(found.centre_zyx, INSIDE, atol=1e-3)


def test_the_same_holds_for_the_voxel_size_of_a_table(tmp_path):
    (tmp_path / "a.csv").write_text(
        "z,y,x,voxel_size_angstrom\n" + "".join(f"{z},{y},{x},1.5\n" for z, y, x in INSIDE)
    )
    with pytest.raises(ReadError, match="2D stack"):
        load_candidates(tmp_path / "a.csv", voxel_size_angstrom=12.0, tomogram_shape=SHAPE)


def test_particles_without_a_name_are_of_the_only_tomogram(tmp_path):
    pixels = (INSIDE * 8)[:, ::-1].tolist()
    path = star(tmp_path / "a.star", pixels)
    lines = path.read_text().replace("_rlnTomoName\n", "").replace("TS_9 ", "")
    path.write_text(lines)
    found = load_candidates(path, tomograms=tomograms_star(tmp_path / "tomograms.star"))
    np.testing.assert_allclose(found.centre_zyx, INSIDE, atol=1e-3)
