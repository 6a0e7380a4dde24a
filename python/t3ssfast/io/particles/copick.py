"""copick picks: `Picks/{user}_{session}_{object}.json` in the folder of a run.

Locations are Angstrom from the corner of the tomogram: voxel coordinate times voxel spacing.
`transformation_` is a 4 x 4 matrix (x, y, z): the object-to-tomogram rotation, and a translation in Angstrom
that is added to the location (copick.util.relion.picks_to_df_relion in copick/copick). A matrix with scale,
shear or reflection is refused. The package copick is not used, because it requires zarr < 3.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from t3ssfast.candidates import PARTICLE_KINDS, T3SS, Candidates
from t3ssfast.errors import ConfigError, ReadError
from t3ssfast.io import atomic_path, display_path, results_folder
from t3ssfast.io.particles.particle_file import ParticleFile, merge_candidates
from t3ssfast.io.particles.poses import rotation_of

__all__ = ["read_copick", "write_copick"]

USER = "t3ssfast"
SESSION = "1"


def write_copick(path: Path, candidates: Candidates) -> None:
    """Write one file of picks per kind; see `t3ssfast.io.particles.export`."""
    kinds = list(dict.fromkeys(map(str, candidates.kind))) or ["t3ss"]
    if path.suffix == ".json":
        parts = path.stem.split("_")
        if len(parts) != 3 or not all(parts) or len(kinds) > 1:
            raise ConfigError(
                f"{display_path(path)}: copick requires user_session_object.json, without more underscores "
                f"and for one kind of particle (here {len(kinds)}); change the name, or give a folder."
            )
        targets = {kinds[0]: path}
    else:
        targets = {kind: path / "Picks" / f"{USER}_{SESSION}_{_object_name(kind)}.json" for kind in kinds}
        results_folder(path / "Picks")
    for kind, target in targets.items():
        user, session, object_name = target.stem.split("_")
        content = {
            "pickable_object_name": object_name,
            "user_id": user,
            "session_id": session,
            "run_name": candidates.tomogram_name,
            "voxel_spacing": candidates.voxel_size_angstrom,
            "unit": "angstrom",
            "trust_orientation": True,
            "points": _points(candidates[candidates.kind == kind]),
        }
        with atomic_path(target) as temporary:
            temporary.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")


def _object_name(kind: str) -> str:
    """Replace the characters that have a meaning in copick's file names."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", kind).strip("-.") or "object"


def _points(candidates: Candidates) -> list[dict[str, Any]]:
    matrices = np.tile(np.eye(4), (len(candidates), 1, 1))
    if len(candidates):
        matrices[:, :3, :3] = rotation_of(candidates).as_matrix()
    locations_xyz = candidates.centre_zyx[:, ::-1].astype(np.float64) * candidates.voxel_size_angstrom
    rows = zip(locations_xyz.tolist(), matrices.tolist(), candidates.score, strict=True)
    return [
        {
            "location": dict(zip("xyz", location, strict=True)),
            "transformation_": matrix,
            "instance_id": index,
            "score": float(score),
        }
        for index, (location, matrix, score) in enumerate(rows)
    ]


def read_copick(file: ParticleFile) -> list[Candidates]:
    """Read one file of picks, or all in a run's folder; see `t3ssfast.io.particles.load_candidates`."""
    if not file.path.is_dir():
        return [_read_picks(file)]
    paths = sorted(file.path.glob("Picks/*.json")) or sorted(file.path.glob("*.json"))
    if not paths:
        raise ReadError(f"{file}: the folder has no copick picks (Picks/*.json); give a particle file.")
    parts = [_read_picks(replace(file, path=path)) for path in paths]
    if len({part.tomogram_name for part in parts}) > 1:
        raise ReadError(f"{file}: the folder has picks of several runs; give one run's folder or one file.")
    return [merge_candidates(parts).sorted_by_score()]


def _read_picks(file: ParticleFile) -> Candidates:
    try:
        content = json.loads(file.read_text())
        points = content["points"] or []
        unit = str(content.get("unit", "angstrom"))
        locations = [[point["location"][axis] for axis in "xyz"] for point in points]
        scores = [1.0 if point.get("score") is None else point["score"] for point in points]
        matrices = [point.get("transformation_") or np.eye(4).tolist() for point in points]
        matrix = np.array(matrices, dtype=np.float64).reshape(-1, 4, 4)
        run = content.get("run_name")
        spacing = None if content.get("voxel_spacing") is None else float(content["voxel_spacing"])
        name = str(content.get("pickable_object_name") or T3SS)
        # Underscores have a meaning in copick's file names.
        kind = next((kind for kind in PARTICLE_KINDS if _object_name(kind) == name), name)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ReadError(f"{file}: not a copick file of picks; give such a file.") from error
    if unit != "angstrom":
        raise ReadError(f"{file}: the unit is {unit!r}; convert the picks to angstrom.")
    orientation = matrix[:, :3, :3]
    is_rotation = np.allclose(orientation @ orientation.transpose(0, 2, 1), np.eye(3), atol=1e-3)
    if not is_rotation or (np.linalg.det(orientation) < 0).any():
        raise ReadError(f"{file}: a transformation is not a rotation; repair it.")
    if not np.allclose(matrix[:, 3], [0, 0, 0, 1], atol=1e-6):
        raise ReadError(f"{file}: the last row of a transformation is not 0 0 0 1; repair it.")
    voxel_size, _ = file.voxel_size_and_scale(spacing)
    position = file.parse_numbers(locations).reshape(-1, 3) + file.parse_numbers(matrix[:, :3, 3])
    return file.candidates(
        (position / voxel_size)[:, ::-1],
        Rotation.from_matrix(orientation) if points else None,
        score=file.parse_numbers(scores),
        voxel_size_angstrom=voxel_size,
        tomogram_name=str(run) if run else file.path.stem,
        kind=np.full(len(points), kind),
    )
