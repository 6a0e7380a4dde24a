"""Runs of the averaging: checkpoints, threads and memory, result files, the commands."""

from __future__ import annotations

import json
from dataclasses import replace

import mrcfile
import numpy as np
import pandas as pd
import pytest
import torch

from command_line import CliRunner
from simulated_particles import BOX, CONFIG, CPU, VOXEL_ANGSTROM, perturbed
from t3ssfast.averaging.average import average
from t3ssfast.averaging.fourier import FourierShells
from t3ssfast.averaging.refine import Refinement, State
from t3ssfast.cli import app
from t3ssfast.errors import CheckpointWarning
from t3ssfast.io import write
from t3ssfast.io.particles import export, load_all_candidates
from t3ssfast.plotting import draw_average
from t3ssfast.runtime.checkpoint import CheckpointStore

ONE_ITERATION = replace(CONFIG, iterations=1)


class Killed(Exception):
    pass


@pytest.fixture
def iterations(monkeypatch):
    """Numbers of the iterations that run; a run is killed in iteration `iterations.kill`."""
    iterate = Refinement.iterate

    class Iterations(list):
        kill = -1

    calls = Iterations()

    def recorded(self, state, advance):
        calls.append(state.iteration)
        if state.iteration == calls.kill:
            raise Killed
        return iterate(self, state, advance)

    monkeypatch.setattr(Refinement, "iterate", recorded)
    return calls


def test_interrupted_run_resumes_with_identical_results(tmp_path, simulated, iterations):
    tomograms, prior = simulated.tomograms[:4], perturbed(simulated.truth[:4])

    def run(folder, config=CONFIG):
        return average(tomograms, prior, BOX, symmetry="C6", config=config, folder=folder)

    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    run(uninterrupted).save(uninterrupted)
    iterations.clear()
    iterations.kill = 2
    with pytest.raises(Killed):
        run(killed)
    iterations.kill = -1
    files = run(killed).save(killed)
    assert iterations == [0, 1, 2, 2]
    for file in files:
        assert file.read_bytes() == (uninterrupted / file.name).read_bytes()
    # A finished run is not repeated. Only the last state is kept.
    iterations.clear()
    run(killed).save(killed)
    assert iterations == []
    assert len(list(killed.rglob("*.npz"))) == 1
    # A checkpoint of other options is left alone.
    with pytest.warns(CheckpointWarning, match="beginning"):
        run(killed, replace(CONFIG, seed=1, iterations=1))
    assert iterations == [0]
    assert len(list(killed.rglob("*.npz"))) == 2


def test_damaged_checkpoint_is_ignored(tmp_path, simulated, iterations):
    def run(**options):
        config = replace(ONE_ITERATION, **options)
        average(simulated.tomograms[:4], perturbed(simulated.truth[:4]), BOX, config=config, folder=tmp_path)

    run()
    (state,) = tmp_path.rglob("*.npz")
    run(threads=2, memory_budget_bytes=0)
    assert iterations == [0], "neither threads nor memory change the result"
    state.write_bytes(b"PK nonsense")
    run()
    assert iterations == [0, 0]


def test_state_of_more_iterations_than_requested_is_not_used(tmp_path):
    arrays = [np.zeros(1, np.float32)] * 6
    store = CheckpointStore(tmp_path, "key", name="average")
    assert State.load(store, 5) is None
    store.save("state", **vars(State(5, *arrays)))
    assert State.load(store, 4) is None
    assert State.load(store, 5).iteration == 5


def test_memory_and_threads_change_no_bit(simulated):
    tomograms, prior = simulated.tomograms[:6], perturbed(simulated.truth[:6])
    first, second = (
        average(
            tomograms, prior, BOX, config=replace(ONE_ITERATION, memory_budget_bytes=size, threads=threads)
        )
        for size, threads in ((2 << 30, 1), (0, 3))
    )
    np.testing.assert_array_equal(first.map, second.map)
    np.testing.assert_array_equal(first.candidates[0].centre_zyx, second.candidates[0].centre_zyx)


def test_b_factor_sharpens_the_map(simulated):
    tomograms, prior = simulated.tomograms[:6], perturbed(simulated.truth[:6])
    shells = FourierShells(BOX, 8, CPU)
    plain, sharp = (
        shells.transform(
            torch.from_numpy(
                average(tomograms, prior, BOX, config=replace(ONE_ITERATION, b_factor=b_factor)).map
            )
        ).abs()
        for b_factor in (None, 20_000.0)
    )
    frequency = shells.frequency.norm(dim=1) / (BOX * VOXEL_ANGSTROM)
    signal = plain > 1e-3 * plain.max()
    expected = torch.exp(20_000 / 4 * frequency**2)
    np.testing.assert_allclose((sharp / plain)[signal], expected[signal], rtol=0.02)


def test_result_files(tmp_path, result):
    result.save(tmp_path)
    with mrcfile.open(tmp_path / "average.mrc") as file:
        np.testing.assert_array_equal(file.data, result.map)
        assert file.voxel_size.x == pytest.approx(VOXEL_ANGSTROM)
    kept = result.summary()["kept"]
    assert sum(map(len, load_all_candidates(tmp_path / "candidates.star"))) == kept
    table = pd.read_csv(tmp_path / "particles.csv")
    assert len(table) == 36
    assert table["kept"].sum() == kept
    assert set(table["half"]) == {1, 2}
    content = json.loads((tmp_path / "average.json").read_text())
    assert content["resolution_angstrom"] == pytest.approx(result.resolution_angstrom, abs=0.01)
    draw_average(tmp_path / "average.png", result)
    assert (tmp_path / "average.png").read_bytes()[:4] == b"\x89PNG"


def test_candidates_without_a_tomogram_shape_can_be_saved(tmp_path, simulated):
    bare = [replace(some, tomogram_shape=None) for some in simulated.truth[:4]]
    average(simulated.tomograms[:4], bare, BOX, symmetry="C6", config=ONE_ITERATION).save(tmp_path)
    assert len(load_all_candidates(tmp_path / "candidates.star")) == 4


def invoke(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_commands(tmp_path, simulated):
    tomograms = [tmp_path / f"{tomogram.name}.mrc" for tomogram in simulated.tomograms[:4]]
    for path, tomogram in zip(tomograms, simulated.tomograms, strict=False):
        write(path, tomogram.data, VOXEL_ANGSTROM)
    export(perturbed(simulated.truth[:4]), tmp_path / "picks.star", "relion5")
    picks = ("--candidates", tmp_path / "picks.star")
    out = tmp_path / "out"
    for option in ("--no-reject-outliers", "--no-weed"):
        ran = invoke(
            "average", *tomograms, *picks, "--box", BOX, "--iterations", 1, option, "--json", "-o", out
        )
        assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["particles"] == 4
    assert {"average.mrc", "average.png", "candidates.star"} <= {path.name for path in out.iterdir()}
    assert json.loads((out / "average.json").read_text())["config"]["reject_outliers"] is False
    ran = invoke("extract", *tomograms, *picks, "--box", 16, "--json", "-o", tmp_path / "boxes")
    assert json.loads(ran.stdout)["boxes"] == 4
    with mrcfile.open(tmp_path / "boxes" / "subtomograms.mrcs") as file:
        assert file.data.shape == (4, 16, 16, 16)
    wrong = invoke("average", *tomograms[:3], *picks, *picks, "-o", tmp_path / "x")
    assert wrong.exit_code == 1
    assert wrong.stderr.count("\n") == 1
