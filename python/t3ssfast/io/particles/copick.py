"""copick picks: `Picks/{user}_{session}_{object}.json` in the folder of a run.

Locations are in Angstrom from the corner of the tomogram: voxel coordinate times voxel spacing. Orientations
are 4 x 4 object-to-tomogram matrices (x, y, z). The JSON is written here: copick itself pins zarr < 3.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ConfigError, ReadError
from t3ssfast.io import atomic_path, display_path
from t3ssfast.io.particles.particle_file import ParticleFile, numbers
from t3ssfast.io.particles.poses import normal_and_rot, rotation_of

__all__ = ["read_copick", "write_copick"]

USER = "t3ssfast"
SESSION = "1"


def write_copick(path: Path, candidates: Sequence[Candidates]) -> None:
    """Write picks of one tomogram, one file for each kind; see `t3ssfast.io.particles.export`."""
    if len(candidates) != 1:
        raise ConfigError(f"copick keeps one run a folder and {len(candidates)} were given; write each.")
    some = candidates[0]
    kinds = list(dict.fromkeys(map(str, some.kind))) or ["t3ss"]
    if path.suffix == ".json":
        parts = path.stem.split("_")
        if len(parts) != 3 or not all(parts) or len(kinds) > 1:
            raise ConfigError(
                f"{display_path(path)}: copick names a file user_session_object.json, with no "
                "other underscores and "
                f"one kind of object in it (here {len(kinds)}); change the name, or give the run's folder."
            )
        targets = [(path, parts[0], parts[1], parts[2])]
    else:
        targets = [
            (path / "Picks" / f"{USER}_{SESSION}_{copick_name(kind)}.json", USER, SESSION, copick_name(kind))
            for kind in kinds
        ]
        try:
            (path / "Picks").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{display_path(path)} cannot be made a folder ({error.strerror}); choose another."
            ) from error
    for kind, (target, user, session, name) in zip(kinds, targets, strict=True):
        content = _content(some[some.kind == kind], name)
        content |= {"user_id": user, "session_id": session}
        with atomic_path(target) as temporary:
            temporary.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")


def copick_name(name: str) -> str:
    """A name without the characters that copick gives a meaning."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", name).strip("-.") or "object"


def _content(some: Candidates, name: str) -> dict[str, Any]:
    matrices = np.tile(np.eye(4), (len(some), 1, 1))
    if len(some):
        matrices[:, :3, :3] = rotation_of(some).as_matrix()
    locations = some.centre_zyx[:, ::-1].astype(np.float64) * some.voxel_size_angstrom
    points = [
        {
            "location": dict(zip("xyz", location, strict=True)),
            "transformation_": matrix,
            "instance_id": index,
            "score": float(score),
        }
        for index, (location, matrix, score) in enumerate(
            zip(locations.tolist(), matrices.tolist(), some.score, strict=True)
        )
    ]
    return {
        "pickable_object_name": name,
        "user_id": USER,
        "session_id": SESSION,
        "run_name": some.tomogram_name,
        "voxel_spacing": some.voxel_size_angstrom,
        "unit": "angstrom",
        "trust_orientation": True,
        "points": points,
    }


def read_copick(source: ParticleFile) -> list[Candidates]:
    """Read a picks file, or all of a run's folder; see `t3ssfast.io.particles.load_candidates`."""
    if not source.path.is_dir():
        return [_read_file(source)]
    files = sorted(source.path.glob("Picks/*.json")) or sorted(source.path.glob("*.json"))
    if not files:
        raise ReadError(f"{source.name} is a folder without copick picks (Picks/*.json); give a file.")
    parts = [_read_file(ParticleFile(f, source.voxel_size_angstrom, source.tomogram_shape)) for f in files]
    first = parts[0]
    if any(p.tomogram_name != first.tomogram_name for p in parts):
        raise ReadError(f"{source.name} holds picks of several runs; give one run's folder or one file.")
    fields = ("score", "normal_zyx", "kind", "rot_degrees")
    merged = Candidates(
        centre_zyx=np.concatenate(
            [p.centre_zyx * (p.voxel_size_angstrom / first.voxel_size_angstrom) for p in parts]
        ),
        voxel_size_angstrom=first.voxel_size_angstrom,
        tomogram_shape=first.tomogram_shape,
        tomogram_name=first.tomogram_name,
        **{name: np.concatenate([getattr(p, name) for p in parts]) for name in fields},
    )
    return [merged.sorted_by_score()]


def _read_file(source: ParticleFile) -> Candidates:
    try:
        content = json.loads(source.read_text())
        points = content["points"] or []
        if str(content.get("unit", "angstrom")) != "angstrom":
            raise ReadError(f"{source.name} is in {content['unit']!r}; only Angstrom is understood.")
        locations = [[p["location"][axis] for axis in "xyz"] for p in points]
        matrices = [p.get("transformation_") or np.eye(4).tolist() for p in points]
        scores = [1.0 if p.get("score") is None else p["score"] for p in points]
        name, spacing = content.get("run_name"), content.get("voxel_spacing")
        spacing = None if spacing is None else float(spacing)
        kind = str(content.get("pickable_object_name") or "t3ss")
        orientation = np.array(matrices, dtype=np.float64).reshape(-1, 4, 4)[:, :3, :3]
        if not np.allclose(orientation @ orientation.transpose(0, 2, 1), np.eye(3), atol=1e-3):
            raise ReadError(f"{source.name}: a transformation is no rotation; repair it.")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ReadError(f"{source.name} is no copick picks file; check what it is.") from error
    voxel_size, _ = source.grid(spacing)
    values = numbers(source, [*zip(*locations, strict=True), scores]) if points else np.zeros((0, 4))
    normal, rot = np.zeros((0, 3), np.float32), np.zeros(0)
    if points:
        normal, rot = normal_and_rot(Rotation.from_matrix(orientation))
    return Candidates(
        centre_zyx=(values[:, :3] / voxel_size)[:, ::-1].astype(np.float32),
        score=values[:, 3].astype(np.float32),
        normal_zyx=normal,
        voxel_size_angstrom=voxel_size,
        tomogram_shape=source.tomogram_shape,
        tomogram_name=str(name) if name else source.path.stem,
        kind=np.full(len(points), kind),
        rot_degrees=rot.astype(np.float32),
    )
