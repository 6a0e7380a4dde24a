"""Column names in the star files of RELION and of programs that read and write them."""

from __future__ import annotations

__all__ = ["ANGLES"]

TOMOGRAM_NAME = "rlnTomoName"
CENTRED_COORDINATES = [f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]
COORDINATES = [f"rlnCoordinate{axis}" for axis in "XYZ"]
ORIGIN_ANGSTROM = [f"rlnOrigin{axis}Angst" for axis in "XYZ"]
ORIGIN_PIXELS = [f"rlnOrigin{axis}" for axis in "XYZ"]
ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
SUBTOMOGRAM_ANGLES = ["rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi"]
CLASS = "rlnClassNumber"
OPTICS_GROUP = "rlnOpticsGroup"
TOMOGRAM_SIZE = [f"rlnTomoSize{axis}" for axis in "XYZ"]
BINNING = "rlnTomoTomogramBinning"
# Of the unbinned tilt series.
PIXEL_SIZE = "rlnTomoTiltSeriesPixelSize"
PARTICLES_FILE = "rlnTomoParticlesFile"
TOMOGRAMS_FILE = "rlnTomoTomogramsFile"
IMPORT_FILE = "rlnTomoImportParticleFile"

# Alternatives, in order of preference.
NAMES = (TOMOGRAM_NAME, "rlnMicrographName", "rlnTomogramName", "wrpSourceName")
SCORES = ("rlnAutopickFigureOfMerit", "rlnLCCmax", "rlnMaxValueProbDistribution")
PIXEL_SIZES = (PIXEL_SIZE, "rlnPixelSize", "rlnImagePixelSize", "rlnMicrographPixelSize")

# Columns of t3ssfast.
KIND = "t3ssKind"
VOXEL_SIZE = "t3ssVoxelSizeAngstrom"
# Added to tables whose coordinates are in Angstrom.
COORDINATES_IN_ANGSTROM = "t3ssAngstrom"

# Columns that are never parsed as numbers.
TEXT = [*NAMES, "tomo_num", "halfset", IMPORT_FILE, PARTICLES_FILE, TOMOGRAMS_FILE, KIND]
TEXT += [f"rln{name}" for name in ("TomoParticleName", "ImageName", "CtfImage", "OpticsGroupName")]
