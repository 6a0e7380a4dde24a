"""IMOD models and text points."""

from __future__ import annotations

import struct
import warnings

import numpy as np
import pytest
from imodmodel.models import ImodModel

from t3ssfast.errors import ReadError
from t3ssfast.io.particles import export, load_candidates


def test_exported_model_in_imod_coordinates(tmp_path, make_candidates):
    candidates = make_candidates(4)
    export(candidates, tmp_path / "a.mod", "imod")
    model = ImodModel.from_file(tmp_path / "a.mod")
    assert [item.header.name for item in model.objects] == ["t3ss", "normals"]
    expected = candidates.centre_zyx[:, ::-1] + [0.5, 0.5, 0.0]
    points = np.concatenate([contour.points for contour in model.objects[0].contours])
    np.testing.assert_allclose(points, expected, rtol=1e-6)
    assert model.header.pixelsize == pytest.approx(1.36)
    assert (model.header.units, model.header.xmax) == (-9, 1023)
    assert int(model.header.flags) == 1 << 10


def test_scores_are_values_of_contours(tmp_path, make_candidates):
    candidates = make_candidates(7, kind=["t3ss", "flagellar_motor", "t3ss", "t3ss", "t3ss", "t3ss", "t3ss"])
    export(candidates, tmp_path / "a.mod", "imod")
    found = load_candidates(tmp_path / "a.mod")
    np.testing.assert_allclose(found.score, candidates.score, rtol=1e-6)
    assert found.kind.tolist() == candidates.kind.tolist()
    items = ImodModel.from_file(tmp_path / "a.mod").objects[0].extra
    values = [item.value for item in items if item.type == 10]
    np.testing.assert_allclose(values, candidates.score[candidates.kind == "t3ss"], rtol=1e-6)
    # The range of the values, by which 3dmod colours and hides.
    (span,) = [item for item in items if item.type == 11]
    assert (span.index, span.value) == (min(values), max(values))


def test_model_of_imod_equals_imodmodel(data):
    model = load_candidates(data / "imod_objects.mod")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = ImodModel.from_file(data / "imod_objects.mod")
    points = np.concatenate([c.points for item in reference.objects for c in item.contours])
    np.testing.assert_allclose(model.centre_zyx[:, ::-1] + [0.5, 0.5, 0.0], points, rtol=1e-5)
    assert model.voxel_size_angstrom == pytest.approx(19.73333)


def test_points_below_the_first_section(tmp_path, make_candidates):
    below = make_candidates(4, centre_zyx=[[-12.5, 3, 4], [-1, -2, -3], [0, 0, 0], [7, 8, 9]])
    export(below, tmp_path / "a.mod", "imod")
    np.testing.assert_allclose(load_candidates(tmp_path / "a.mod").centre_zyx, below.centre_zyx, atol=1e-4)
    contours = ImodModel.from_file(tmp_path / "a.mod").objects[0].contours
    points = np.concatenate([contour.points for contour in contours])
    np.testing.assert_allclose(points[:, 2], [-12.5, -1, 0, 7], atol=1e-4)


def test_text_points(tmp_path, make_candidates):
    candidates = make_candidates(5)
    export(candidates, tmp_path / "a.txt", "imod")
    assert np.loadtxt(tmp_path / "a.txt")[0, 0] == pytest.approx(candidates.centre_zyx[0, 2] + 0.5, abs=1e-3)
    found = load_candidates(tmp_path / "a.txt", format="imod", voxel_size_angstrom=13.6)
    np.testing.assert_allclose(found.centre_zyx, candidates.centre_zyx, atol=1e-3)
    (tmp_path / "b.txt").write_text("1 1 10.5 20.5 30\n1 2 1.5 2.5 -3\n")
    two = load_candidates(tmp_path / "b.txt", format="imod", voxel_size_angstrom=13.6)
    np.testing.assert_allclose(two.centre_zyx, [[30, 20, 10], [-3, 2, 1]])
    (tmp_path / "b.txt").write_text("1 2\n")
    with pytest.raises(ReadError, match="2 values"):
        load_candidates(tmp_path / "b.txt", format="imod", voxel_size_angstrom=13.6)


DEFAULT_FLAGS = 1 << 10 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 15
SCATTERED, OPEN = 1 << 9, 1 << 3


def model_bytes(contours, flags=DEFAULT_FLAGS, maxima=(400, 420, 100), minx=None, object_flags=SCATTERED):
    """Return a model of one object, laid out as https://bio3d.colorado.edu/imod/doc/binspec.html says."""
    header = b"IMODV1.2" + b"IMOD-NewModel".ljust(128, b"\0") + struct.pack(">4iI", *maxima, 1, flags)
    header += struct.pack(">4i6f5i", 1, 1, 0, 255, 0, 0, 0, 1, 1, 1, 0, 0, -1, 3, 128)
    header += struct.pack(">fi4i", 1.25, -9, 0, 0, 0, 0)
    content = b"OBJT" + (b"picks".ljust(128, b"\0") + struct.pack(">iI", len(contours), object_flags)).ljust(
        176, b"\0"
    )
    for points in contours:
        content += b"CONT" + struct.pack(">4i", len(points), 0, 0, 0) + np.asarray(points, ">f4").tobytes()
    if minx is not None:
        content += b"MINX" + struct.pack(">i18f", 72, *minx)
    return header + content + b"IEOF"


def image_reference(otrans, cscale, ctrans, crot=(0, 0, 0)):
    return (1, 1, 1, *otrans, 0, 0, 0, *cscale, *ctrans, *crot)


POINT = [[[100.5, 200.5, 30]]]


def test_model_of_the_whole_volume(tmp_path):
    # An origin in the header of the image, tilt angles and a scale move nothing.
    reference = image_reference((50, -60, 70), (12.5, 12.5, 12.5), (50, -60, 70), crot=(0, 20, 0))
    (tmp_path / "a.mod").write_bytes(model_bytes(POINT, minx=reference))
    found = load_candidates(tmp_path / "a.mod")
    np.testing.assert_allclose(found.centre_zyx, [[30, 200, 100]])
    assert found.tomogram_shape == (100, 420, 400)
    assert found.voxel_size_angstrom == pytest.approx(12.5)


def test_model_of_a_part_of_a_volume_is_shifted(tmp_path):
    # 3dmod subtracts first voxel * scale from the origin of the image that is loaded in part.
    first = np.array([40, 8, 20])
    reference = image_reference((50, -60, 70), (12.5,) * 3, np.array([50, -60, 70]) - 12.5 * first)
    (tmp_path / "a.mod").write_bytes(model_bytes(POINT, minx=reference))
    found = load_candidates(tmp_path / "a.mod")
    np.testing.assert_allclose(found.centre_zyx, [[50, 208, 140]], atol=1e-4)
    assert found.tomogram_shape is None


def test_translation_without_the_origin_of_the_image_is_not_used(tmp_path):
    reference = image_reference((0, 0, 0), (12.5,) * 3, (-500, 0, 0))
    flags = DEFAULT_FLAGS & ~(1 << 14)
    (tmp_path / "a.mod").write_bytes(model_bytes(POINT, flags, minx=reference))
    np.testing.assert_allclose(load_candidates(tmp_path / "a.mod").centre_zyx, [[30, 200, 100]])


def test_unusable_image_reference_is_refused(tmp_path):
    (tmp_path / "a.mod").write_bytes(model_bytes(POINT, minx=image_reference((0,) * 3, (0,) * 3, (1, 0, 0))))
    with pytest.raises(ReadError, match="MINX"):
        load_candidates(tmp_path / "a.mod")


def test_exchanged_y_and_z(tmp_path):
    stored = [[[100.5, 30.5, 200]]]
    (tmp_path / "a.mod").write_bytes(model_bytes(stored, DEFAULT_FLAGS | 1 << 16, (400, 100, 420)))
    found = load_candidates(tmp_path / "a.mod")
    np.testing.assert_allclose(found.centre_zyx, [[30, 200, 100]])
    assert found.tomogram_shape == (100, 420, 400)


def test_volume_rotated_about_x(tmp_path):
    # imodRot90X: y = zmax - 0.5 - z', z = y' - 0.5.
    stored = [[[100.5, 30.5, 420 - 0.5 - 200.5]]]
    (tmp_path / "a.mod").write_bytes(model_bytes(stored, DEFAULT_FLAGS | 1 << 17, (400, 100, 420)))
    found = load_candidates(tmp_path / "a.mod")
    np.testing.assert_allclose(found.centre_zyx, [[30, 200, 100]])
    assert found.tomogram_shape == (100, 420, 400)


def test_exchanged_y_and_z_in_a_part_of_a_volume(tmp_path):
    reference = image_reference((0, 0, 0), (12.5,) * 3, (-125, -250, -375))
    stored = [[[100.5, 30.5, 200]]]
    flags = DEFAULT_FLAGS | 1 << 16
    (tmp_path / "a.mod").write_bytes(model_bytes(stored, flags, (400, 100, 420), reference))
    np.testing.assert_allclose(load_candidates(tmp_path / "a.mod").centre_zyx, [[60, 220, 110]])


VECTORS = [[[10.5, 20.5, 30], [10.5, 20.5, 50]], [[40.5, 50.5, 60], [43.5, 54.5, 60]]]


@pytest.mark.parametrize("object_flags", [OPEN, 0])
def test_vectors_of_two_points_are_particles_with_a_direction(tmp_path, object_flags):
    (tmp_path / "a.mod").write_bytes(model_bytes(VECTORS, object_flags=object_flags))
    found = load_candidates(tmp_path / "a.mod")
    np.testing.assert_allclose(found.centre_zyx, [[30, 20, 10], [60, 50, 40]])
    np.testing.assert_allclose(found.normal_zyx, [[1, 0, 0], [0, 0.8, 0.6]], atol=1e-6)
    assert list(found.kind) == ["picks"] * 2


@pytest.mark.parametrize(
    ("contours", "object_flags", "count"),
    [
        (VECTORS, SCATTERED, 4),
        (VECTORS[:1], 0, 2),
        (VECTORS[:1], OPEN, 1),
        ([*VECTORS, [[1, 2, 3]]], OPEN, 5),
    ],
)
def test_other_contours_of_two_points_are_two_particles(tmp_path, contours, object_flags, count):
    (tmp_path / "a.mod").write_bytes(model_bytes(contours, object_flags=object_flags))
    assert len(load_candidates(tmp_path / "a.mod")) == count


def test_vector_without_length_is_refused(tmp_path):
    (tmp_path / "a.mod").write_bytes(model_bytes([[[1, 2, 3]] * 2], object_flags=OPEN))
    with pytest.raises(ReadError, match="the same"):
        load_candidates(tmp_path / "a.mod")


def test_models_of_these_tests_are_those_of_imodmodel(tmp_path):
    reference = image_reference((50, -60, 70), (12.5,) * 3, (-450, -60, 70))
    (tmp_path / "a.mod").write_bytes(model_bytes(VECTORS, minx=reference, object_flags=OPEN))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ImodModel.from_file(tmp_path / "a.mod")
    contours = model.objects[0].contours
    np.testing.assert_allclose([contour.points for contour in contours], VECTORS)
    assert int(model.header.flags) == DEFAULT_FLAGS
    assert (model.minx.ctrans, model.minx.cscale) == ((-450, -60, 70), (12.5,) * 3)


def test_points_deleted_in_3dmod_leave_the_other_normals(tmp_path, make_candidates):
    candidates = make_candidates(5)
    export(candidates, tmp_path / "a.mod", "imod")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ImodModel.from_file(tmp_path / "a.mod")
        contours = [model.objects[0].contours[k] for k in (0, 3, 4, 4)]
        contours[3] = contours[3].model_copy(update={"points": np.array([[1.5, 2.5, 3.0]])})
        model.objects[0].contours = contours
        # 3dmod keeps the values of the contours that are left.
        model.objects[0].extra = model.objects[0].extra[:3]
        model.to_file(tmp_path / "b.mod")
    found = load_candidates(tmp_path / "b.mod")
    np.testing.assert_allclose(found.normal_zyx[:3], candidates.normal_zyx[[0, 3, 4]], atol=1e-5)
    np.testing.assert_allclose(found.normal_zyx[3], [1, 0, 0])
    np.testing.assert_allclose(found.score, [*candidates.score[:3], 1.0], rtol=1e-6)
