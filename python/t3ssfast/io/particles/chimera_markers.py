"""Writing of marker files of Chimera and ChimeraX (.cmm): a sphere per particle, and a link along its normal.

Positions are voxel coordinate times voxel size, in Angstrom, as for volumes whose origin is 0. The note of a
marker is the score; its colour goes from grey to that of the kind as the score rises.
Format: https://www.cgl.ucsf.edu/chimerax/docs/user/formats/cmm.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import Candidates
from t3ssfast.io.atomic import atomic_path
from t3ssfast.io.particles.chimerax import ARROW_LENGTH_ANGSTROM, ARROW_RADII_ANGSTROM, MARKER_RADIUS_ANGSTROM
from t3ssfast.io.particles.particle_file import printable

__all__ = ["write_chimera_markers"]

# Red, green, blue of the kinds, in their order, and of a score of 0.
COLOURS = ((0.2, 0.8, 0.3), (1.0, 0.6, 0.1), (0.2, 0.6, 1.0), (0.9, 0.2, 0.9), (0.95, 0.9, 0.2))
UNLIKELY = (0.55, 0.55, 0.55)


def write_chimera_markers(path: Path, candidates: Candidates) -> None:
    """Write one set of markers; see `t3ssfast.io.particles.export`."""
    size = candidates.voxel_size_angstrom
    centre_xyz = candidates.centre_zyx[:, ::-1].astype(np.float64) * size
    tip_xyz = centre_xyz + candidates.normal_zyx[:, ::-1] * ARROW_LENGTH_ANGSTROM
    kinds = list(dict.fromkeys(map(str, candidates.kind)))
    lines = [f"<marker_set name={quoteattr(printable(candidates.tomogram_name))}>"]
    links = []
    for row, score in enumerate(candidates.score.tolist()):
        kind = str(candidates.kind[row])
        share = min(max(score, 0.0), 1.0)
        pure = COLOURS[kinds.index(kind) % len(COLOURS)]
        colour = _colour([share * a + (1 - share) * b for a, b in zip(pure, UNLIKELY, strict=True)])
        first, second = 2 * row + 1, 2 * row + 2
        note = quoteattr(printable(f"{kind} {score:.3f}"))
        lines.append(_marker(first, centre_xyz[row], colour, MARKER_RADIUS_ANGSTROM, f" note={note}"))
        lines.append(_marker(second, tip_xyz[row], colour, ARROW_RADII_ANGSTROM[1]))
        links.append(f'<link id1="{first}" id2="{second}" {colour} radius="{ARROW_RADII_ANGSTROM[0]:g}"/>')
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join([*lines, *links, "</marker_set>"]) + "\n", encoding="utf-8")


def _colour(rgb: Sequence[float]) -> str:
    return " ".join(f'{name}="{value:.3f}"' for name, value in zip("rgb", rgb, strict=True))


def _marker(number: int, xyz: npt.NDArray[np.float64], colour: str, radius: float, more: str = "") -> str:
    place = " ".join(f'{axis}="{value:.2f}"' for axis, value in zip("xyz", xyz.tolist(), strict=True))
    return f'<marker id="{number}" {place} {colour} radius="{radius:g}"{more}/>'
