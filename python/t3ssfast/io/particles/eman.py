"""Reading of EMAN2's boxes in a tomogram: `boxes_3d` of info/{tomogram}_info.json.

A box is [x, y, z, method, score, class], its centre. If the file has `apix_unbin`, positions are unbinned
voxels of this size from the middle of the tomogram, voxel n // 2; otherwise they are voxels of the tomogram
from its corner (e2spt_boxer.py in cryoem/eman2). Classes are named in `class_list`. Orientations are not in
this file.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ReadError
from t3ssfast.io.particles.particle_file import ParticleFile, printable

__all__ = ["is_eman_info", "read_eman"]

# EMAN2's names of unnamed classes start with this.
UNNAMED_CLASS = "particles_"


def is_eman_info(file: ParticleFile) -> bool:
    """Return whether a JSON file has EMAN2's boxes."""
    try:
        return "boxes_3d" in json.loads(file.read_text())
    except (ValueError, TypeError, RecursionError):
        return False


def read_eman(file: ParticleFile) -> list[Candidates]:
    """Read the boxes of one tomogram; see `t3ssfast.io.particles.load_candidates`."""
    try:
        content = json.loads(file.read_text())
        boxes = [list(box) for box in content["boxes_3d"]]
        positions = [box[:3] for box in boxes]
        scores = [box[4] if len(box) > 4 else 1.0 for box in boxes]
        kinds = [_kind(content.get("class_list") or {}, box[5] if len(box) > 5 else 0) for box in boxes]
        unbinned = content.get("apix_unbin")
        unbinned_size = None if unbinned is None else float(unbinned)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ReadError(f"{file}: not an EMAN2 file with boxes_3d; give info/*_info.json.") from error
    position = file.parse_numbers(positions or np.zeros((0, 3)))
    if position.shape[1:] != (3,):
        raise ReadError(f"{file}: a box of boxes_3d does not begin with x, y, z; repair it.")
    if unbinned_size is None:
        voxel_size, scale = file.voxel_size_and_scale(None)
        centre_zyx = position[:, ::-1] * scale
    else:
        voxel_size = file.resolve_voxel_size(None)
        if file.tomogram_shape is None:
            raise ReadError(
                f"{file}: positions are from the middle of the tomogram, whose size is unknown; give "
                "tomogram_shape (--tomogram FILE)."
            )
        middle = np.array(file.tomogram_shape) // 2
        centre_zyx = position[:, ::-1] * (unbinned_size / voxel_size) + middle
    return [
        file.candidates(
            centre_zyx,
            score=file.parse_numbers(scores),
            kind=np.array(kinds, dtype=str),
            voxel_size_angstrom=voxel_size,
            tomogram_name=file.path.stem.removesuffix("_info"),
        )
    ]


def _kind(class_list: dict[str, Any], number: Any) -> str:
    """Return the name of a class; "t3ss" for the first one, if it is unnamed."""
    entry = class_list.get(str(int(number)), UNNAMED_CLASS)
    name = str(entry.get("name", UNNAMED_CLASS) if isinstance(entry, dict) else entry)
    if name.startswith(UNNAMED_CLASS):
        return "t3ss" if int(number) == 0 else f"class_{int(number)}"
    return printable(name)
