"""The kinds of particles whose positions are known: what a verifier takes them for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import Candidates
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.verify import verify
from t3ssfast.errors import ConfigError
from t3ssfast.models import LoadedModel
from t3ssfast.tomogram import Tomogram

__all__ = ["tell_kinds"]


def tell_kinds(
    tomogram: Tomogram, particles: Candidates, verifier: LoadedModel, *, contrast: str = "dark"
) -> npt.NDArray[np.str_]:
    """Return the kind of each particle, (n,), among those that a verifier tells apart.

    The verifier corrects centres and axes, as in a detection. The scores and kinds of `particles` play no
    part.

    Parameters
    ----------
    tomogram, particles
        A tomogram, and particles in it, in voxels of their own size.
    verifier
        Verifier of two or more kinds, such as the bundled one.
    contrast
        Contrast of protein in the tomogram, "dark" or "light".

    Raises
    ------
    ConfigError
        If the contrast is neither.
    """
    if contrast not in ("dark", "light"):
        raise ConfigError(f'The contrast is {contrast!r}; give "dark" or "light".')
    kinds = np.array(verifier.metadata.kinds)
    if len(particles) == 0:
        return kinds[:0]
    grid = PreparedTomogram.prepare(
        tomogram,
        voxel_size_angstrom=verifier.metadata.voxel_size_angstrom,
        normalisation=verifier.metadata.normalisation,
        contrast_sign=1 if contrast == verifier.metadata.contrast else -1,
    )
    scale = particles.voxel_size_angstrom / tomogram.voxel_size_angstrom
    centre = grid.from_tomogram((particles.centre_zyx.astype(np.float64) + 0.5) * scale - 0.5)
    # A score of one half says nothing.
    undecided = np.full(len(particles), 0.5, np.float32)
    _, _, kind, _ = verify(grid, centre, particles.normal_zyx, undecided, verifier)
    return np.asarray(kinds[kind])
