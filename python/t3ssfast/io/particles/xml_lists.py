"""Reading of particle lists of PyTom and object lists of DeepFinder (.xml).

Rotations of both are ``Rotation.from_euler("zxz", [phi, theta, psi])``, object to tomogram, with PyTom's
Z1, X, Z2 for phi, theta, psi. Positions are 0-based voxels.

PyTom (SBC-Utrecht/PyTom, basic/structures.py): PickPosition plus Shift; Origin is the file of the tomogram.
Other paradigms than ZXZ and positions with a binning are refused. Wedge, CTF and Filename are not used.
DeepFinder (deep-finder/cryoet-deepfinder, utils/objl.py and core.py): x, y, z, psi, phi, the, class_label,
and tomo_idx as the name of the tomogram. obj_id and cluster_size are not used.

Documents with a DTD are refused: their entities could fill the memory or read other files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy as np
from scipy.spatial.transform import Rotation

from t3ssfast.candidates import Candidates
from t3ssfast.errors import ReadError
from t3ssfast.io import tomogram_name
from t3ssfast.io.particles.particle_file import ParticleFile, kinds_of_classes, text_of_number

__all__ = ["read_xml"]

XYZ = ("x", "y", "z")
DEEPFINDER_ANGLES = ("phi", "the", "psi")
PYTOM_ANGLES = ("Z1", "X", "Z2")


def read_xml(file: ParticleFile) -> list[Candidates]:
    """Read a list of particles; see `t3ssfast.io.particles.load_candidates`."""
    text = file.read_text()
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ReadError(f"{file}: the document has a DTD, which lists of particles do not have; remove it.")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise ReadError(f"{file}: not an XML document ({error}); give a list of particles.") from error
    readers: dict[str, Callable[[ParticleFile, ElementTree.Element], dict[str, Any]]] = {
        "ParticleList": _pytom,
        "objlist": _deepfinder,
    }
    if root.tag not in readers:
        expected = "ParticleList (PyTom) nor objlist (DeepFinder)"
        raise ReadError(f"{file}: the document is neither a {expected}; give such a list.")
    try:
        found = readers[root.tag](file, root)
    except (KeyError, AttributeError) as error:
        raise ReadError(f"{file}: a particle lacks its {error}; repair it.") from error
    file.resolve_voxel_size(None)
    position = file.parse_numbers(found["position"] or np.zeros((0, 3)))
    angles = found["angles"]
    rotation = Rotation.from_euler("zxz", file.parse_numbers(angles), degrees=True) if angles else None
    fields: dict[str, Any] = {"kind": np.array(found["kinds"], dtype=str)}
    if found["scores"]:
        fields["score"] = file.parse_numbers(found["scores"])
    return file.candidates_by_tomogram(found["names"], {}, position[:, ::-1], rotation, **fields)


def _pytom(file: ParticleFile, root: ElementTree.Element) -> dict[str, Any]:
    positions, angles, names, kinds, scores = [], [], [], [], []
    for particle in root.iter("Particle"):
        children = {child.tag: child for child in particle}
        position, shift = children["PickPosition"], children.get("Shift")
        if float(position.get("Binning") or 1) != 1:
            raise ReadError(f"{file}: a PickPosition has a Binning; convert it to voxels of the tomogram.")
        at = file.parse_numbers([position.attrib[axis.upper()] for axis in XYZ])
        if shift is not None:
            at = at + file.parse_numbers([shift.get(axis.upper(), "0") for axis in XYZ])
        positions.append(at)
        rotation = children.get("Rotation")
        if rotation is not None:
            paradigm = rotation.get("Paradigm", "ZXZ")
            if paradigm != "ZXZ":
                raise ReadError(f"{file}: a rotation has the paradigm {paradigm!r}; convert it to ZXZ.")
            angles.append([rotation.get(angle, "0") for angle in PYTOM_ANGLES])
        origin = position.get("Origin") or ""
        names.append(tomogram_name(origin) if origin else file.path.stem)
        score = children.get("Score")
        if score is not None and score.get("Value") is not None:
            scores.append(score.attrib["Value"])
        group = children.get("Class")
        label = "" if group is None else group.get("Name") or ""
        kinds.append(str(kinds_of_classes([label])[0]) if label.isdecimal() else label or "t3ss")
    for name, values in (("rotations", angles), ("scores", scores)):
        if values and len(values) != len(positions):
            raise ReadError(f"{file}: {len(values)} {name} for {len(positions)} particles; repair the list.")
    return {"position": positions, "angles": angles, "names": names, "kinds": kinds, "scores": scores}


def _deepfinder(file: ParticleFile, root: ElementTree.Element) -> dict[str, Any]:
    objects = list(root.iter("object"))
    # Angles are optional, and either all objects have them or none.
    with_angles = [o for o in objects if any(angle in o.attrib for angle in DEEPFINDER_ANGLES)]
    if with_angles and len(with_angles) != len(objects):
        raise ReadError(f"{file}: {len(with_angles)} of {len(objects)} objects have angles; repair the list.")
    labels = file.parse_numbers([o.get("class_label", "1") for o in objects])
    return {
        "position": [[o.attrib[axis] for axis in XYZ] for o in objects],
        "angles": [[o.attrib[angle] for angle in DEEPFINDER_ANGLES] for o in with_angles],
        "names": [text_of_number(o.get("tomo_idx", file.path.stem)) for o in objects],
        "kinds": kinds_of_classes(labels),
        "scores": [],
    }
