"""Writing of ChimeraX scripts (.cxc) that show a tomogram, its membrane and the candidates.

Candidates are markers, coloured by kind; the arrows along their normals are in a BILD file beside the script,
which the script opens.
Positions are voxel coordinate times voxel size, in Angstrom; the script sets the origins of the volumes to 0
and their voxel sizes, whatever their headers say.
Commands: https://www.cgl.ucsf.edu/chimerax/docs/user/commands/marker.html and volume.html, formats/bild.html.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError
from t3ssfast.io import atomic_path, display_path
from t3ssfast.io.particles.particle_file import printable
from t3ssfast.tomogram import StrPath

__all__ = ["write_chimerax"]

# Numbers of the models in ChimeraX.
TOMOGRAM, MEMBRANE, ARROWS, FIRST_MARKERS = 1, 2, 3, 4
COLOURS = ("lime", "orange", "dodgerblue", "magenta", "yellow")
MARKER_RADIUS_ANGSTROM = 130.0  # the radius of the basal body
ARROW_LENGTH_ANGSTROM = 400.0  # the length of a needle
ARROW_RADII_ANGSTROM = (20.0, 50.0)  # of the shaft and the head
SHAFT_FRACTION = 0.75


def write_chimerax(
    path: Path, candidates: Candidates, tomogram: StrPath | None, membrane: StrPath | None
) -> list[Path]:
    """Write a script and the file of arrows, whose path is returned; see `t3ssfast.io.particles.export`."""
    if path.suffix.lower() != ".cxc":
        raise ConfigError(f"{display_path(path)}: the suffix of a ChimeraX script is .cxc; change the name.")
    voxel_size = candidates.voxel_size_angstrom
    lines = [f"# Written by t3ssfast: {len(candidates)} candidates of {printable(candidates.tomogram_name)}"]
    for number, volume, style in (
        (TOMOGRAM, tomogram, "style image region all"),
        (MEMBRANE, membrane, "style surface level 0.5 color #b0b0b080 step 2"),
    ):
        if volume is not None:
            lines.append(f"open {_quoted(_relative(volume, path.parent))} id {number}")
            lines.append(f"volume #{number} originIndex 0,0,0 voxelSize {voxel_size:.6g} {style}")
    arrows_path = path.with_name(f"{path.stem}_arrows.bild")
    centre_xyz = candidates.centre_zyx[:, ::-1].astype(np.float64) * voxel_size
    direction_xyz = candidates.normal_zyx[:, ::-1].astype(np.float64) * ARROW_LENGTH_ANGSTROM
    arrows = []
    for index, kind in enumerate(dict.fromkeys(map(str, candidates.kind))):
        model, colour = FIRST_MARKERS + index, COLOURS[index % len(COLOURS)]
        arrows.append(f".color {colour}")
        for row in np.flatnonzero(candidates.kind == kind):
            centre, tip = centre_xyz[row], centre_xyz[row] + direction_xyz[row]
            position = ",".join(f"{value:.2f}" for value in centre)
            lines.append(
                f"marker #{model} position {position} color {colour} radius {MARKER_RADIUS_ANGSTROM:g}"
            )
            ends = " ".join(f"{value:.2f}" for value in (*centre, *tip))
            radii = " ".join(f"{radius:g}" for radius in ARROW_RADII_ANGSTROM)
            arrows.append(f".arrow {ends} {radii} {SHAFT_FRACTION:g}")
        lines.append(f"rename #{model} {_quoted(re.sub(r'[^A-Za-z0-9_.+-]', '_', kind))}")
    if len(candidates):
        lines.append(f"open {_quoted(arrows_path.name)} id {ARROWS}")
    lines.append("view")
    with atomic_path(arrows_path) as temporary:
        temporary.write_text("\n".join(arrows) + "\n", encoding="utf-8")
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [arrows_path]


def _relative(file: StrPath, folder: Path) -> str:
    """Return the path from a folder if the file is in it or below, so that both can be moved."""
    absolute = os.path.abspath(file)
    start = os.path.abspath(folder)
    return os.path.relpath(absolute, start) if absolute.startswith(start + os.sep) else absolute


def _quoted(text: str) -> str:
    """Quote an argument of a command; ChimeraX reads the escapes of JSON in quotes."""
    return json.dumps(text, ensure_ascii=False)
