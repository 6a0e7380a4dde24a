"""Toy examples for the tests of calibration, fine-tuning and the recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

import t3ssfast as t3
from t3ssfast.simulation.simulate import Physics
from t3ssfast.training.bundled.examples import Example
from toy import VOXEL, toy_tomogram


def toy_example(k: int) -> Example:
    """Return the toy cell; one of its three particles is a look-alike."""
    tomogram, truth, membrane = toy_tomogram(shape=(24, 120 + 2 * k, 132))
    tomogram = replace(tomogram, name=f"toy_{k}")
    t3ss, look_alike = truth[:2], replace(truth[2:], kind=np.array(["secretin"]))
    physics = Physics(noise_scale=(0.5, 0.8, 1.2)[k % 3])
    return Example(tomogram, membrane, t3ss, t3ss, look_alike, physics)


def write_example(
    folder: Path, k: int, tomogram: t3.Tomogram, membrane: np.ndarray, picks: t3.Candidates
) -> list[str]:
    """Write files of a tomogram, and return the arguments of a command that reads them."""
    t3.write(folder / f"{k}.mrc", tomogram.data, VOXEL)
    t3.write(folder / f"{k}_m.mrc", membrane, VOXEL)
    t3.export(picks, folder / f"{k}.csv", "csv")
    return [
        *(str(folder / f"{k}.mrc"), "-p", str(folder / f"{k}.csv"), "-m", str(folder / f"{k}_m.mrc")),
    ]
