"""The exceptions and warnings of t3ssfast.

Every message is one sentence: "<file or argument>: <what is wrong, with the value>; <what to do>."
"""

from __future__ import annotations

__all__ = [
    "BusyError",
    "CheckpointWarning",
    "ConfigError",
    "DeviceError",
    "DeviceWarning",
    "InputError",
    "ModelError",
    "OutOfMemoryError",
    "OutputError",
    "PictureWarning",
    "ReadError",
    "T3Error",
    "TrustWarning",
    "VoxelSizeError",
]


class T3Error(Exception):
    """Base class of all exceptions raised by t3ssfast."""


class ReadError(T3Error):
    """A file is missing, unreadable, truncated or in an unsupported format."""


class OutputError(T3Error):
    """A result cannot be written."""


class BusyError(T3Error):
    """Another process is writing into the same folder."""


class InputError(T3Error, ValueError):
    """An argument has the wrong shape, dtype or values, such as NaN or an empty mask."""


class VoxelSizeError(InputError):
    """The voxel size is missing, or outside the range of real tomograms."""


class ConfigError(T3Error, ValueError):
    """An option has an invalid value."""


class ModelError(T3Error):
    """A model file is invalid, or the model's output is unusable."""


class DeviceError(T3Error):
    """The requested device does not exist or cannot be used."""


class OutOfMemoryError(T3Error, MemoryError):
    """Memory ran out even at the smallest batch or slab size."""


class CheckpointWarning(UserWarning):
    """A checkpoint was made by a different run and is ignored; the run starts from the beginning."""


class PictureWarning(UserWarning):
    """A picture could not be drawn; the tables of the result are complete."""


class TrustWarning(UserWarning):
    """A model file is loaded without the security checks."""


class DeviceWarning(UserWarning):
    """A CUDA device is present but cannot be used; the run uses the CPU."""
