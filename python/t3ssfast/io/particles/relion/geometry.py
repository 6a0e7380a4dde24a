"""Where the particles of a star file are in their tomograms."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from t3ssfast.errors import ReadError
from t3ssfast.io import display_path
from t3ssfast.io.particles.particle_file import ParticleFile, numbers
from t3ssfast.io.particles.relion.columns import (
    ANGSTROM,
    BINNING,
    CENTRED,
    COORDINATE,
    PIXEL_SIZES,
    SIZE,
    VOXEL_SIZE,
)
from t3ssfast.io.particles.relion.tables import read_star
from t3ssfast.tomogram import check_voxel_size

__all__ = ["Geometry"]


class Geometry:
    """Where the particles of a star file are, in Angstrom from the centre of the tomogram's first voxel."""

    def __init__(
        self, source: ParticleFile, blocks: dict[str, pd.DataFrame], particles: pd.DataFrame
    ) -> None:
        self.source = source
        self.own = self._own_tomograms(blocks)
        self.relion = {} if source.tomograms is None else self._relion_tomograms(source.tomograms)
        self.pixel_sizes = self._pixel_sizes(blocks, particles)
        self.centred = set(CENTRED) <= set(particles)
        self.in_angstrom = ANGSTROM in particles
        self.values = numbers(source, [particles[c] for c in (CENTRED if self.centred else COORDINATE)])

    def _own_tomograms(self, blocks: dict[str, pd.DataFrame]) -> dict[str, tuple[Any, float]]:
        """Shape (zyx, None where unknown) and voxel size of each tomogram, as t3ssfast wrote them."""
        table = blocks.get("t3ssfast")
        if table is None or not {"rlnTomoName", VOXEL_SIZE, *SIZE} <= set(table):
            return {}
        own: dict[str, tuple[Any, float]] = {}
        values = numbers(self.source, [table[c] for c in (VOXEL_SIZE, *SIZE)])
        for name, (voxel_size, x, y, z) in zip(table["rlnTomoName"], values, strict=True):
            shape = (int(z), int(y), int(x)) if min(x, y, z) > 0 else None
            own[str(name)] = (shape, check_voxel_size(voxel_size, source=self.source.name))
        return own

    def _relion_tomograms(self, path: Path) -> dict[str, tuple[npt.NDArray[Any], float, float]]:
        """Unbinned size (x, y, z), its pixel size, and the binning, from a tomograms.star."""
        needed = ["rlnTomoName", "rlnTomoTiltSeriesPixelSize", *SIZE]
        blocks = read_star(path)
        table = next((block for block in blocks.values() if set(needed) <= set(block)), None)
        if table is None:
            raise ReadError(
                f"{display_path(path)} is no RELION tomograms.star: it has no block with {', '.join(needed)}."
            )
        table = table.assign(**{BINNING: table.get(BINNING, 1.0)})
        columns = [table[c] for c in (*SIZE, PIXEL_SIZES[0], BINNING)]
        values = numbers(ParticleFile(path), columns)
        return {
            str(n): (row[:3], row[3], row[4]) for n, row in zip(table["rlnTomoName"], values, strict=True)
        }

    def _pixel_sizes(self, blocks: dict[str, pd.DataFrame], particles: pd.DataFrame) -> npt.NDArray[Any]:
        """(n,) Angstrom for one unit of rlnCoordinateX/Y/Z; NaN where the file does not say."""
        n = len(particles)
        if ANGSTROM in particles:
            return np.ones(n)
        if "rlnDetectorPixelSize" in particles and "rlnMagnification" not in particles:
            # PyTom's template matching: Angstrom.
            return numbers(self.source, [particles["rlnDetectorPixelSize"]])[:, 0]
        if {"rlnMagnification", "rlnDetectorPixelSize"} <= set(particles):  # RELION 3.0, micrometres
            detector, magnification = numbers(
                self.source, [particles["rlnDetectorPixelSize"], particles["rlnMagnification"]]
            ).T
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.asarray(detector * 1e4 / magnification)
        tables = [particles, *(block for name, block in blocks.items() if block is not particles)]
        for column in PIXEL_SIZES:
            for table in tables:
                if column not in table or len(table) == 0:
                    continue
                sizes = numbers(self.source, [table[column]])[:, 0]
                if table is particles:
                    return sizes
                if "rlnOpticsGroup" in table and "rlnOpticsGroup" in particles:
                    groups = dict(zip(table["rlnOpticsGroup"], sizes, strict=True))
                    return np.array(
                        [groups.get(g, math.nan) for g in particles["rlnOpticsGroup"]], dtype=float
                    )
                if len(set(sizes)) == 1:
                    return np.full(n, sizes[0])
        return np.full(n, math.nan)

    def fields(self, name: str) -> dict[str, Any]:
        """Voxel size and shape of the tomogram that the centres will refer to."""
        shape, in_file = self.own.get(name, (None, None))
        if name in self.relion:
            size, pixel_size, binning = self.relion[name]
            in_file = pixel_size * binning if in_file is None else in_file
            shape = tuple(round(n / binning) for n in size[::-1]) if shape is None else shape
        in_angstrom = self.in_angstrom or self.centred
        if in_file is None and not in_angstrom and len(self.pixel_sizes):
            in_file = float(self.pixel_sizes[0])
        voxel_size = self.source.voxel_size(in_file)
        if self.source.tomogram_shape is not None:
            shape = self.source.tomogram_shape
        elif (
            shape is not None and in_file is not None and not math.isclose(voxel_size, in_file, rel_tol=1e-3)
        ):
            shape = None  # that of another binning
        return {"voxel_size_angstrom": voxel_size, "tomogram_shape": shape}

    def position_angstrom(
        self, name: str, rows: npt.NDArray[Any], voxel_size: float
    ) -> npt.NDArray[np.float64]:
        """(k, 3) x, y, z of the given rows."""
        values = self.values[rows]
        if not self.centred:
            scale = self.pixel_sizes[rows]
            # Without a pixel size the coordinates are taken as voxels of the size that was given.
            return np.asarray(values * np.where(np.isfinite(scale), scale, voxel_size)[:, None])
        if self.source.tomogram_shape is not None:
            extent = np.array(self.source.tomogram_shape[::-1]) * voxel_size
        elif name in self.relion:
            extent = self.relion[name][0] * self.relion[name][1]
        elif self.own.get(name, (None, 0.0))[0] is not None:
            shape, own_size = self.own[name]
            extent = np.array(shape[::-1]) * own_size
        else:
            raise ReadError(
                f"{self.source.name} tells positions from the middle of {name!r}, whose size is not known; "
                "give tomograms (--tomograms), the tomograms.star, or tomogram_shape (--tomogram FILE)."
            )
        return np.asarray(values + extent / 2)
