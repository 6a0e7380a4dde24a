"""The result of an average, and its files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t3ssfast.averaging.config import AverageConfig
from t3ssfast.averaging.resolution import FourierShellCorrelation
from t3ssfast.candidates import Candidates
from t3ssfast.io import atomic_path, results_folder, write
from t3ssfast.io.particles import export
from t3ssfast.tomogram import StrPath

__all__ = ["Average"]

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Average:
    """A subtomogram average, its half maps and the refined particles.

    Parameters
    ----------
    map
        (box, box, box) float32, protein bright, the axis of the structure along +z, its centre at voxel
        box // 2. The mean of the half maps, filtered by their Fourier shell correlation and sharpened by
        `AverageConfig.b_factor`.
    half_maps
        Two (box, box, box) float32, neither filtered nor masked.
    mask
        (box, box, box) float32.
    voxel_size_angstrom
        Voxel size of the maps.
    fsc
        Fourier shell correlation of the half maps under the mask.
    candidates
        All particles of each tomogram with their refined poses. The score is the correlation with the average
        of the particle's half set.
    kept
        One bool array per tomogram, whether each particle is part of the maps.
    half
        One array of 0 and 1 per tomogram, the half set of each particle.
    symmetry
        "C1" to "C60".
    config
        Options.
    """

    map: Float32
    half_maps: tuple[Float32, Float32]
    mask: Float32
    voxel_size_angstrom: float
    fsc: FourierShellCorrelation
    candidates: list[Candidates]
    kept: list[npt.NDArray[np.bool_]]
    half: list[npt.NDArray[np.int64]]
    symmetry: str
    config: AverageConfig

    @property
    def resolution_angstrom(self) -> float:
        """Resolution at FSC = 0.143; NaN if none can be claimed."""
        return self.fsc.resolution_angstrom

    @property
    def curated(self) -> list[Candidates]:
        """The particles of each tomogram that are part of the maps."""
        return [some[kept] for some, kept in zip(self.candidates, self.kept, strict=True)]

    def summary(self) -> dict[str, Any]:
        """Return counts and resolutions as plain values; a resolution is None if none can be claimed."""

        def rounded(value: float) -> float | None:
            return round(value, 2) if np.isfinite(value) else None

        return {
            "particles": sum(map(len, self.candidates)),
            "kept": int(sum(kept.sum() for kept in self.kept)),
            "symmetry": self.symmetry,
            "box": self.map.shape[0],
            "voxel_size_angstrom": self.voxel_size_angstrom,
            "resolution_angstrom": rounded(self.fsc.resolution_angstrom),
            "resolution_half_angstrom": rounded(self.fsc.half_angstrom),
            "shared_angstrom": round(self.fsc.shared_angstrom, 2),
        }

    def save(self, folder: StrPath) -> list[Path]:
        """Write maps, FSC, particles and summary to a folder, each file atomically.

        The files are average.mrc, half_map_1.mrc, half_map_2.mrc, mask.mrc, fsc.csv, particles.csv (all
        particles, with score, half set and whether they were kept), candidates.star (the kept particles) and,
        last, average.json.

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        import pandas as pd

        out = results_folder(folder, "average.json")
        names = ["average.mrc", "half_map_1.mrc", "half_map_2.mrc", "mask.mrc"]
        for name, volume in zip(names, (self.map, *self.half_maps, self.mask), strict=True):
            write(out / name, volume, self.voxel_size_angstrom)
        columns = ["frequency_per_angstrom", "correlation", "masked", "noise"]
        with atomic_path(out / "fsc.csv") as temporary:
            pd.DataFrame(vars(self.fsc))[columns].to_csv(temporary, index=False)
        tables = [
            some.to_dataframe().assign(
                tomogram=some.tomogram_name,
                voxel_size_angstrom=some.voxel_size_angstrom,
                half=half + 1,
                kept=kept.astype(int),
            )
            for some, kept, half in zip(self.candidates, self.kept, self.half, strict=True)
        ]
        with atomic_path(out / "particles.csv") as temporary:
            pd.concat(tables, ignore_index=True).to_csv(temporary, index=False)
        export(self.curated, out / "candidates.star", "relion5")
        with atomic_path(out / "average.json") as temporary:
            text = json.dumps(self.summary() | {"config": self.config.to_dict()}, indent=2)
            temporary.write_text(text + "\n", encoding="utf-8")
        names += ["fsc.csv", "particles.csv", "candidates.star", "average.json"]
        return [out / name for name in names]
