"""The names of columns in RELION's star files, and in those of its neighbours."""

from __future__ import annotations

__all__ = [
    "ANGLES",
    "ANGSTROM",
    "BINNING",
    "CENTRED",
    "COORDINATE",
    "IMPORT_FILE",
    "M_ANGLES",
    "M_COORDINATES",
    "NAMES",
    "ORIGIN",
    "ORIGIN_ANGST",
    "PIXEL_SIZES",
    "SCORES",
    "SIZE",
    "SUBTOMOGRAM",
    "TEXT",
    "VOXEL_SIZE",
]

CENTRED = [f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]
COORDINATE = [f"rlnCoordinate{axis}" for axis in "XYZ"]
ORIGIN_ANGST = [f"rlnOrigin{axis}Angst" for axis in "XYZ"]
ORIGIN = [f"rlnOrigin{axis}" for axis in "XYZ"]
SIZE = [f"rlnTomoSize{axis}" for axis in "XYZ"]
BINNING = "rlnTomoTomogramBinning"
ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
M_COORDINATES = (
    [f"wrpCoordinate{axis}" for axis in "XYZ"],
    [f"wrpCoordinate{axis}1" for axis in "XYZ"],
)
M_ANGLES = ("wrpAngle{}", "wrpAngle{}1")
IMPORT_FILE = "rlnTomoImportParticleFile"
SUBTOMOGRAM = ["rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi"]
NAMES = ("rlnTomoName", "rlnMicrographName", "rlnTomogramName", "wrpSourceName")
SCORES = ("rlnAutopickFigureOfMerit", "rlnLCCmax", "rlnMaxValueProbDistribution")
PIXEL_SIZES = ("rlnTomoTiltSeriesPixelSize", "rlnPixelSize", "rlnImagePixelSize", "rlnMicrographPixelSize")
TEXT = [
    *NAMES,
    "tomo_num",
    "halfset",
    IMPORT_FILE,
    "rlnTomoParticlesFile",
    "rlnTomoTomogramsFile",
    "rlnTomoParticleName",
    "rlnImageName",
    "rlnCtfImage",
    "rlnOpticsGroupName",
    "t3ssKind",
]
VOXEL_SIZE = "t3ssVoxelSizeAngstrom"
# Marks positions in Angstrom.
ANGSTROM = "t3ssAngstrom"
