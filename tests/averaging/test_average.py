"""Averages against the truth of simulated particles, halves that never mix, and what may be claimed."""

from __future__ import annotations

import json
from dataclasses import replace

import mrcfile
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from t3ssfast.averaging.average import AverageConfig, average
from t3ssfast.averaging.fourier import Shells, Spectrum, phase_ramp, turned
from t3ssfast.averaging.mask import soft_mask
from t3ssfast.averaging.refine import GROUPS, Refinement, split
from t3ssfast.averaging.reject_outliers import kept_by_score
from t3ssfast.averaging.resolution import compare_halves, shell_correlation
from t3ssfast.averaging.search import Reference, ShiftSearch, find_pose, local_rotations
from t3ssfast.averaging.stack import zyx_matrices
from t3ssfast.candidates import Candidates
from t3ssfast.cli import app
from t3ssfast.errors import ConfigError, InputError, T3Error
from t3ssfast.io import write
from t3ssfast.io.particles import load_all_candidates
from t3ssfast.io.particles.poses import normal_and_rot, rotation_of
from t3ssfast.plotting import draw_average
from t3ssfast.simulation.simulate import simulate
from t3ssfast.simulation.subtomograms import simulate_subtomograms
from t3ssfast.tomogram import Tomogram

CPU = torch.device("cpu")
VOXEL = 20.0
BOX = 44
# The lengths of the full-size figures in fewer voxels.
CONFIG = AverageConfig(iterations=3, initial_resolution_angstrom=130.0, finest_alignment_voxels=3.0)


def disturbed(truth, seed, *, degrees=5.0, voxels=0.6):
    """Candidates as a detection leaves them: near the truth, the turn about the axis unknown."""
    rng = np.random.default_rng(seed)
    found = []
    for some in truth:
        tilt = Rotation.from_rotvec([*(degrees * rng.normal(size=2)), 0], degrees=True)
        normal, _ = normal_and_rot(rotation_of(some) * tilt)
        centre = some.centre_zyx + voxels * rng.normal(size=(len(some), 3))
        found.append(replace(some, centre_zyx=centre, normal_zyx=normal, rot_degrees=np.zeros(len(some))))
    return found


def errors_degrees(found, truth, fold):
    """Angles between poses, up to the symmetry and one turn about the axis that all have in common."""
    between = [(rotation_of(t).inv() * rotation_of(f))[0] for f, t in zip(found, truth, strict=True)]
    spin = np.array(
        [np.arctan2(m[1, 0] - m[0, 1], m[0, 0] + m[1, 1]) for m in (b.as_matrix() for b in between)]
    )
    common = np.angle(np.exp(1j * fold * spin).mean()) / fold
    turns = Rotation.from_euler("Z", (-common + 2 * np.pi * np.arange(fold) / fold)[:, None])
    return np.array([np.degrees((b * turns).magnitude().min()) for b in between])


@pytest.fixture(scope="module")
def simulated():
    return simulate_subtomograms(
        36,
        1,
        size=54,
        voxel_size_angstrom=VOXEL,
        false_fraction=0.3,
        noise_scale=0.7,
        t3ss_tilt_spread_degrees=2.0,
    )


@pytest.fixture(scope="module")
def result(simulated):
    return average(simulated.tomograms, disturbed(simulated.truth, 2), BOX, symmetry="C6", config=CONFIG)


def true_density(simulated):
    start = simulated.density.shape[0] // 2 - BOX // 2
    return torch.from_numpy(simulated.density[(slice(start, start + BOX),) * 3].copy())


# --------------------------------------------------------------------------------------------- against truth


def test_poses_and_map_are_those_of_the_truth(simulated, result):
    true = [t.kind[0] == "t3ss" for t in simulated.truth]
    found = [c for c, t in zip(result.candidates, true, strict=True) if t]
    truth = [c for c, t in zip(simulated.truth, true, strict=True) if t]
    before = [c for c, t in zip(disturbed(simulated.truth, 2), true, strict=True) if t]
    assert np.median(errors_degrees(found, truth, 6)) < 5
    moved = [np.linalg.norm(c.centre_zyx - t.centre_zyx) for c, t in zip(found, truth, strict=True)]
    assert np.median(moved) < 0.7 * np.median(
        [np.linalg.norm(c.centre_zyx - t.centre_zyx) for c, t in zip(before, truth, strict=True)]
    )
    # The average has a turn of its own about the axis.
    mask = torch.from_numpy(result.mask)
    shells = Shells(BOX, BOX // 2 - 1, CPU)
    whole = torch.from_numpy(np.mean(result.half_maps, axis=0))
    density = true_density(simulated) * mask
    curve = max(
        (
            shell_correlation(
                shells.transform(turned(whole, turn, torch.zeros(3)) * mask),
                shells.transform(density),
                shells,
            )
            for turn in zyx_matrices(
                Rotation.from_euler("Z", np.arange(0, 60, 4.0)[:, None], degrees=True), CPU
            )
        ),
        key=lambda c: float(c[:9].sum()),
    )
    # FSC = 0.5 at 4 voxels or finer: n / 4 shells.
    assert (curve[1 : BOX // 4 + 1] > 0.5).all()
    assert result.resolution_angstrom < 4 * VOXEL
    assert result.fsc.half_angstrom < 4.5 * VOXEL


def test_false_positives_are_weeded(simulated, result):
    kept = np.concatenate(result.kept)
    true = np.array([t.kind[0] == "t3ss" for t in simulated.truth])
    assert (~kept[~true]).mean() >= 0.8
    assert (~kept[true]).mean() <= 0.1
    assert [len(c) for c in result.curated] == [int(k) for k in kept]
    everything = average(
        simulated.tomograms[:8],
        disturbed(simulated.truth[:8], 2),
        BOX,
        config=replace(CONFIG, iterations=1, weed=False),
    )
    assert np.concatenate(everything.kept).all()


def test_axes_stay_within_the_cone(simulated, result):
    for some, prior in zip(result.candidates, disturbed(simulated.truth, 2), strict=True):
        cosine = float(np.sum(some.normal_zyx * prior.normal_zyx))
        # Bringing the halves into one frame may add its own few degrees.
        assert np.degrees(np.arccos(min(cosine, 1))) < CONFIG.cone_degrees + 5.1
        shift = np.abs(some.centre_zyx - prior.centre_zyx).max() * VOXEL / 10
        assert shift < 3 * CONFIG.max_shift_nm


def test_a_tomogram_of_the_simulator(tmp_path):
    simulation = simulate(
        5,
        (56, 150, 150),
        20.0,
        t3ss_per_cell=8,
        noise_scale=0.7,
        cell_flattening=0.9,
        cells=1,
        pretilt_degrees=0.0,
    )
    assert len(simulation.truth) >= 6
    config = replace(CONFIG, iterations=2, weed=False, max_shift_nm=3.0)
    found = average(simulation.tomogram, simulation.truth, box_nm=80, symmetry="C6", config=config)
    own = simulate_subtomograms(1, 0, size=found.map.shape[0], voxel_size_angstrom=20.0)
    mask = torch.from_numpy(found.mask)
    shells = Shells(found.map.shape[0], 10, CPU)
    mean = torch.from_numpy(np.mean(found.half_maps, axis=0))
    values = [shells.transform(v * mask) for v in (mean, torch.from_numpy(own.density))]
    # Membranes, base and needle, in whatever turn: shells up to 16 nm.
    assert shell_correlation(*values, shells)[1:6].mean() > 0.6
    assert len(found.candidates) == 1
    assert len(found.candidates[0]) == len(simulation.truth)


# -------------------------------------------------------------------------------------- halves and resolution


def noise_particles(count, seed=0):
    rng = np.random.default_rng(seed)
    tomograms = [
        Tomogram(rng.normal(size=(50,) * 3).astype(np.float32), VOXEL, f"n{i}") for i in range(count)
    ]
    normal = rng.normal(size=(count, 3))
    return tomograms, [
        Candidates([[25, 25, 25]], [1], normal[i : i + 1], VOXEL, (50,) * 3, f"n{i}") for i in range(count)
    ]


@pytest.mark.parametrize(("lowpass", "iterations"), [(130.0, 2), (70.0, 1)])
def test_noise_aligned_to_a_reference_gives_no_resolution(simulated, lowpass, iterations):
    tomograms, candidates = noise_particles(16)
    reference = true_density(simulated).numpy()
    config = replace(CONFIG, iterations=iterations, initial_resolution_angstrom=lowpass, weed=False)
    found = average(tomograms, candidates, BOX, reference=reference, config=config)
    assert np.isnan(found.resolution_angstrom)
    assert np.isnan(found.fsc.half_angstrom)
    shared = round(BOX * VOXEL / lowpass)
    # Where the halves shared nothing they agree no better than noise does.
    beyond = found.fsc.correlation[shared + 2 :]
    assert abs(beyond.mean()) < 0.143
    assert (np.abs(beyond) < np.maximum(0.143, found.fsc.noise[shared + 2 :] * 4 / 3)).all()
    # The trap is there: below, the same reference has made both halves alike.
    if lowpass < 100:
        assert found.fsc.masked[2:shared].mean() > 0.1


def test_noise_from_its_own_average_gives_no_resolution():
    tomograms, candidates = noise_particles(16, seed=3)
    found = average(tomograms, candidates, BOX, symmetry="C3", config=replace(CONFIG, weed=False))
    assert np.isnan(found.resolution_angstrom)
    assert found.summary()["resolution_angstrom"] is None


def test_halves_never_mix(simulated):
    tomograms, prior = simulated.tomograms[:10], disturbed(simulated.truth[:10], 2)
    config = replace(CONFIG, iterations=1, weed=False)
    first = average(tomograms, prior, BOX, config=config)
    half = np.concatenate(first.half)
    assert sorted(np.bincount(half)) == [5, 5]
    # The others' particles upside down: their spectra stay, what they show does not.
    changed = [
        replace(t, data=t.data[::-1, ::-1].copy()) if h == 1 else t
        for t, h in zip(tomograms, half, strict=True)
    ]
    second = average(changed, prior, BOX, config=config)
    scale = np.abs(first.half_maps[0]).max()
    np.testing.assert_allclose(first.half_maps[0], second.half_maps[0], atol=2e-2 * scale)
    assert np.abs(first.half_maps[1] - second.half_maps[1]).max() > 0.2 * scale


def test_no_particle_is_compared_with_itself():
    half, group = split(23, 0)
    assert abs(int((half == 0).sum()) - int((half == 1).sum())) <= 1
    assert set(group) == set(range(GROUPS))
    # Noise that is part of its reference scores far better than noise that is not.
    tomograms, candidates = noise_particles(10, seed=1)
    found = average(tomograms, candidates, BOX, config=replace(CONFIG, iterations=1, weed=False))
    score = np.concatenate([c.score for c in found.candidates])
    with_itself = 1 / np.sqrt(5)
    assert score.max() < 0.8 * with_itself


def test_the_correlation_of_shells_is_numpys(simulated):
    rng = np.random.default_rng(0)
    a, b = (torch.from_numpy(rng.normal(size=(20,) * 3).astype(np.float32)) for _ in range(2))
    b = a + b
    shells = Shells(20, 9, CPU)
    found = shell_correlation(shells.transform(a), shells.transform(b), shells).numpy()
    fa, fb = np.fft.fftn(a.numpy()), np.fft.fftn(b.numpy())
    k = np.fft.fftfreq(20, 1 / 20)
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    for shell in range(1, 9):
        # Up to radius 9, where the list ends.
        inside = (np.round(radius) == shell) & (radius <= 9)
        expected = np.real(np.sum(fa[inside] * fb[inside].conj())) / np.sqrt(
            np.sum(np.abs(fa[inside]) ** 2) * np.sum(np.abs(fb[inside]) ** 2)
        )
        assert found[shell] == pytest.approx(expected, abs=1e-4)


def test_equal_maps_agree_to_the_end_and_the_mask_alone_to_nothing():
    generator = torch.Generator().manual_seed(0)
    mask = soft_mask(BOX, 6.0, 3.0, CPU)
    a, b = torch.randn(2, BOX, BOX, BOX, generator=generator)
    same = compare_halves((a, a), mask, 10.0)
    np.testing.assert_allclose(same.masked, 1, atol=1e-5)
    assert same.resolution_angstrom == pytest.approx(1 / same.frequency_per_angstrom[-1])
    apart = compare_halves((a, b), mask, 10.0)
    assert np.isnan(apart.resolution_angstrom)
    assert (np.abs(apart.correlation[1:]) < apart.noise[1:] * 4 / 3).all()
    # A mean under the mask would show the mask's own transform in both: it is taken out.
    low = torch.full((BOX,) * 3, 5.0)
    offset = compare_halves((a + low, b + low), mask, 10.0)
    np.testing.assert_allclose(offset.masked, apart.masked, atol=1e-3)
    assert np.isnan(offset.resolution_angstrom)


def test_a_claim_is_finer_than_what_was_shared():
    generator = torch.Generator().manual_seed(1)
    a, b, common = torch.randn(3, BOX, BOX, BOX, generator=generator)
    shells = Shells(BOX, BOX // 2 - 1, CPU)
    smooth = shells.volume(shells.transform(common) * (shells.shell <= 8)) * 6
    everywhere = torch.ones(BOX, BOX, BOX)
    agreed = compare_halves((a + smooth, b + smooth), everywhere, 10.0)
    assert BOX * 10 / agreed.resolution_angstrom == pytest.approx(8.9, abs=0.8)
    trapped = compare_halves((a + smooth, b + smooth), everywhere, 10.0, shared_angstrom=BOX * 10 / 8)
    assert np.isnan(trapped.resolution_angstrom)


# ------------------------------------------------------------------------------------------- Fourier volumes


def blobs(size, centres, sigma=2.0):
    axis = torch.arange(size) - size // 2
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).float()
    return sum(torch.exp(-0.5 * ((grid - torch.tensor(c)) ** 2).sum(-1) / sigma**2) for c in centres)


def test_lists_of_frequencies_are_the_transform():
    volume = torch.randn(12, 12, 12, generator=torch.Generator().manual_seed(0))
    shells = Shells(12, 5, CPU)
    expected = np.fft.fftn(np.fft.ifftshift(volume.numpy()))
    index = shells.frequency.long().numpy()
    np.testing.assert_allclose(shells.transform(volume).numpy(), expected[tuple(index.T)], atol=1e-3)
    np.testing.assert_allclose(
        shells.transform(shells.volume(shells.transform(volume))), shells.transform(volume), atol=1e-3
    )
    k = np.fft.fftfreq(12, 1 / 12)
    inside = k[:, None, None] ** 2 + k[:, None] ** 2 + k**2 <= 25
    assert shells.multiplicity.sum() == inside.sum()
    assert shells.shell_count().sum() == inside.sum()


@settings(deadline=None, max_examples=20)
@given(st.tuples(*[st.floats(-180, 180)] * 3), st.tuples(*[st.floats(-3, 3)] * 3))
def test_turned_and_shifted_volumes(euler, shift):
    centres = [(3.0, -2.0, 4.0), (-4.0, 1.0, -1.0)]
    rotation = Rotation.from_euler("ZYZ", euler, degrees=True)
    matrix = zyx_matrices(rotation, CPU)
    moved = [(matrix @ torch.tensor(c)).numpy() + np.array(shift) for c in centres]
    found = turned(blobs(32, centres), matrix, torch.tensor(shift, dtype=torch.float32))
    expected = blobs(32, [tuple(map(float, m)) for m in moved])
    # Interpolation in the transform may be off by a few percent.
    np.testing.assert_allclose(found, expected, atol=0.06)


def test_a_spectrum_between_its_samples():
    volume = blobs(24, [(2.0, -3.0, 1.0)])
    k = torch.tensor([[1.3, -2.2, 0.4], [-0.6, 1.1, -3.7], [0.0, 0.0, 0.0]])
    axis = torch.arange(24) - 12
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).float().reshape(-1, 3)
    waves = torch.exp(-2j * torch.pi * (grid @ k.T) / 24)
    expected = (volume.reshape(-1, 1) * waves).sum(0)
    found = Spectrum(volume[None], 8).at(k[None])[0]
    np.testing.assert_allclose(found, expected, atol=0.05 * float(volume.sum()))


def test_a_known_pose_is_found():
    centres = [(10.0, 0.0, 0.0), (-3.0, 9.0, 0.0), (-8.0, -3.0, 7.0)]
    volume = blobs(32, centres, 1.5)
    true = Rotation.from_euler("ZYZ", [70.0, 9.0, -31.0], degrees=True)
    moved = turned(volume, zyx_matrices(true, CPU), torch.tensor([1.2, -0.7, 0.4]))
    shells = Shells(32, 8, CPU)
    searched = local_rotations(12.0, 15.0, 1, CPU)
    reference = Reference(volume, torch.ones(9), shells, searched, 8)
    shifts = ShiftSearch(shells, 3.0)
    everything = torch.ones(len(shells.frequency))
    match = find_pose(reference, shells.transform(moved), everything, shifts, shifts, 3, 12.0)
    found = Rotation.from_matrix(match.rotation.numpy()[::-1, ::-1])
    assert np.degrees((found.inv() * true).magnitude()) < 2
    np.testing.assert_allclose(match.shift_zyx, [1.2, -0.7, 0.4], atol=0.15)
    assert match.score > 0.98


@pytest.mark.parametrize(("step", "cone", "fold"), [(15.0, 15.0, 1), (8.0, 15.0, 6), (10.0, 0.0, 2)])
def test_searched_rotations_cover_the_cone_and_no_more(step, cone, fold):
    matrix = local_rotations(step, cone, fold, CPU).matrix.numpy()
    tilt = np.degrees(np.arccos(np.clip(matrix[:, 0, 0], -1, 1)))
    assert tilt.max() <= cone + 0.1
    rng = np.random.default_rng(0)
    ways = rng.uniform(0, 2 * np.pi, 300)
    lean = cone * np.sqrt(rng.random(300))
    wanted = Rotation.from_euler(
        "ZYZ", np.stack([np.degrees(ways), lean, rng.uniform(0, 360, 300)], 1), degrees=True
    )
    turns = Rotation.from_euler("Z", np.arange(fold)[:, None] * 360 / fold, degrees=True)
    have = Rotation.from_matrix(matrix[:, ::-1, ::-1])
    nearest = [min(float((w.inv() * have * turn).magnitude().min()) for turn in turns) for w in wanted]
    # Half the diagonal of a cell, in three angles.
    assert np.degrees(max(nearest)) < 0.9 * step


def test_the_mask_is_soft_and_fits_the_box():
    mask = soft_mask(32, 8.0, 4.0, CPU)
    assert mask[16, 16, 16] == 1
    assert mask[16, 16, 23] == 1
    assert 0 < mask[16, 16, 26] < 1
    assert mask[16, 16, 29] == 0
    assert mask[0].max() == 0
    assert mask.min() == 0


# ------------------------------------------------------------------------------------------------- weeding


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(20, 200), st.floats(0.05, 0.6))
def test_two_groups_of_scores_are_told_apart(seed, count, part):
    rng = np.random.default_rng(seed)
    low = max(3, int(part * count))
    scores = np.r_[rng.normal(0.15, 0.03, low), rng.normal(0.4, 0.03, count)]
    kept = kept_by_score(scores)
    assert (~kept[:low]).mean() > 0.9
    assert kept[low:].mean() > 0.95
    # Nobody is dropped for being the best.
    assert kept[scores.argmax()]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 300))
def test_one_group_of_scores_is_left_whole(seed, count):
    assert kept_by_score(np.random.default_rng(seed).normal(0.3, 0.05, count)).mean() > 0.95


def test_few_or_equal_scores_are_left_whole():
    assert kept_by_score([]).shape == (0,)
    assert kept_by_score([0.1] * 5 + [0.9] * 6).all()
    assert kept_by_score([0.3] * 50).all()


# ------------------------------------------------------------------------------------------- runs and files


class Killed(Exception):
    pass


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, simulated, monkeypatch):
    tomograms, prior = simulated.tomograms[:8], disturbed(simulated.truth[:8], 2)
    whole = average(tomograms, prior, BOX, symmetry="C6", config=CONFIG, folder=tmp_path / "whole")
    whole.save(tmp_path / "whole")
    iterate = Refinement.iterate
    calls = []

    def killed(self, state, advance):
        calls.append(state.iteration)
        if state.iteration == 2 and len(calls) == 3:
            raise Killed
        return iterate(self, state, advance)

    monkeypatch.setattr(Refinement, "iterate", killed)
    with pytest.raises(Killed):
        average(tomograms, prior, BOX, symmetry="C6", config=CONFIG, folder=tmp_path / "killed")
    again = average(tomograms, prior, BOX, symmetry="C6", config=CONFIG, folder=tmp_path / "killed")
    assert calls == [0, 1, 2, 2]
    again.save(tmp_path / "killed")
    for name in (
        "average.mrc",
        "half_map_1.mrc",
        "half_map_2.mrc",
        "particles.csv",
        "fsc.csv",
        "candidates.star",
    ):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    # Other options are another piece of work; a damaged state is none.
    calls.clear()
    average(
        tomograms,
        prior,
        BOX,
        symmetry="C6",
        config=replace(CONFIG, seed=1, iterations=1),
        folder=tmp_path / "killed",
    )
    assert calls == [0]
    next((tmp_path / "whole" / "state").glob("*.npz")).write_bytes(b"PK nonsense")
    calls.clear()
    average(
        tomograms, prior, BOX, symmetry="C6", config=replace(CONFIG, iterations=1), folder=tmp_path / "whole"
    )
    assert calls == [0]


def test_memory_and_threads_change_nothing(simulated):
    tomograms, prior = simulated.tomograms[:6], disturbed(simulated.truth[:6], 2)
    config = replace(CONFIG, iterations=1)
    found = [
        average(tomograms, prior, BOX, config=replace(config, memory_budget_bytes=room, threads=threads))
        for room, threads in ((2 << 30, 1), (0, 3))
    ]
    np.testing.assert_array_equal(found[0].map, found[1].map)
    np.testing.assert_array_equal(found[0].candidates[0].centre_zyx, found[1].candidates[0].centre_zyx)


def test_saved_results(tmp_path, result):
    result.save(tmp_path / "out")
    with mrcfile.open(tmp_path / "out" / "average.mrc") as file:
        np.testing.assert_array_equal(file.data, result.map)
        assert file.voxel_size.x == pytest.approx(VOXEL)
    kept = load_all_candidates(tmp_path / "out" / "candidates.star")
    assert sum(map(len, kept)) == result.summary()["kept"]
    table = pd.read_csv(tmp_path / "out" / "particles.csv")
    assert len(table) == 36
    assert table["kept"].sum() == result.summary()["kept"]
    assert set(table["half"]) == {1, 2}
    content = json.loads((tmp_path / "out" / "average.json").read_text())
    assert content["resolution_angstrom"] == pytest.approx(result.resolution_angstrom, abs=0.01)
    draw_average(tmp_path / "out" / "average.png", result)
    assert (tmp_path / "out" / "average.png").read_bytes()[:4] == b"\x89PNG"


def test_sharpening_is_asked_for(simulated):
    tomograms, prior = simulated.tomograms[:6], disturbed(simulated.truth[:6], 2)
    config = replace(CONFIG, iterations=1)
    plain = average(tomograms, prior, BOX, config=config)
    sharp = average(tomograms, prior, BOX, config=replace(config, b_factor=20_000.0))
    shells = Shells(BOX, 8, CPU)
    a, b = (shells.transform(torch.from_numpy(r.map)).abs() for r in (plain, sharp))
    frequency = shells.frequency.norm(dim=1) / (BOX * VOXEL)
    seen = a > 1e-3 * a.max()
    np.testing.assert_allclose((b / a)[seen], torch.exp(5000 * frequency**2)[seen], rtol=0.02)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"symmetry": "D2"}, "symmetry"),
        ({"symmetry": "C0"}, "symmetry"),
        ({"box": 31}, "even"),
        ({"box": None}, "box"),
        ({"mask": np.ones((8, 8, 8))}, "mask"),
        ({"reference": np.ones((8, 8, 8))}, "reference"),
        ({"candidates": []}, "each tomogram"),
        ({"device": "abacus"}, "device"),
    ],
)
def test_what_cannot_be_averaged(simulated, arguments, match):
    given = {
        "tomograms": simulated.tomograms[:2],
        "candidates": simulated.truth[:2],
        "box": BOX,
        "config": CONFIG,
    }
    with pytest.raises(T3Error, match=match) as caught:
        average(**(given | arguments))
    assert "\n" not in str(caught.value)


def test_candidates_that_lack_a_size_or_a_name(tmp_path, simulated):
    bare = [replace(some, tomogram_shape=None) for some in simulated.truth[:4]]
    config = replace(CONFIG, iterations=1)
    found = average(simulated.tomograms[:4], bare, BOX, symmetry="C6", config=config)
    found.save(tmp_path)
    assert len(load_all_candidates(tmp_path / "candidates.star")) == 4
    same = [replace(some, tomogram_name="a") for some in simulated.truth[:2]]
    with pytest.raises(InputError, match="'a'"):
        average(simulated.tomograms[:2], same, BOX, config=config)


def test_too_little_to_average(simulated):
    with pytest.raises(InputError, match="at least 2"):
        average(simulated.tomograms[0], simulated.truth[0], BOX)
    flat = Tomogram(np.zeros((36, 36, 36), np.float32), VOXEL)
    some = Candidates(np.full((3, 3), 18.0), np.ones(3), np.eye(3), VOXEL)
    with pytest.raises(InputError, match="empty"):
        average(flat, some, BOX, config=CONFIG)


@pytest.mark.parametrize(
    "options",
    [
        {"iterations": 0},
        {"cone_degrees": -1},
        {"tilt_range_degrees": (60, -60)},
        {"contrast": "grey"},
        {"b_factor": float("nan")},
        {"mask_radius_nm": 0},
        {"finest_alignment_voxels": 1},
        {"threads": 0},
    ],
)
def test_options_are_checked(options):
    with pytest.raises(ConfigError):
        AverageConfig(**options)


def test_the_command(tmp_path, simulated):
    names, files = [], []
    for tomogram in simulated.tomograms[:4]:
        names.append(str(tmp_path / f"{tomogram.name}.mrc"))
        write(names[-1], tomogram.data, VOXEL)
    from t3ssfast.io.particles import export

    export(disturbed(simulated.truth[:4], 2), tmp_path / "picks.star", "relion5")
    files = ["--candidates", str(tmp_path / "picks.star")]
    options = ["--box", str(BOX), "--iterations", "1", "--json", "-o", str(tmp_path / "out")]
    ran = CliRunner().invoke(app, ["average", *names, *files, *options])
    assert ran.exit_code == 0, ran.output
    report = json.loads(ran.stdout)
    assert report["particles"] == 4
    assert all(
        (tmp_path / "out" / name).is_file() for name in ("average.mrc", "average.png", "candidates.star")
    )
    cut = CliRunner().invoke(
        app, ["extract", *names, *files, "--box", "16", "--json", "-o", str(tmp_path / "boxes")]
    )
    assert json.loads(cut.stdout)["boxes"] == 4
    with mrcfile.open(tmp_path / "boxes" / "subtomograms.mrcs") as file:
        assert file.data.shape == (4, 16, 16, 16)
    wrong = CliRunner().invoke(app, ["average", *names[:3], *files, *files, "-o", str(tmp_path / "x")])
    assert wrong.exit_code == 1
    assert wrong.stderr.count("\n") == 1


def test_phase_ramps_shift():
    volume = blobs(16, [(0.0, 0.0, 0.0)])
    shells = Shells(16, 7, CPU)
    ramp = phase_ramp(shells.frequency, torch.tensor([-2.0, 1.0, 0.0]), 16)
    moved = shells.volume(shells.transform(volume) * ramp)
    assert np.unravel_index(int(moved.argmax()), (16, 16, 16)) == (10, 7, 8)
