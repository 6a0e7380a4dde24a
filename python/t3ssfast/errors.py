"""What can go wrong, as one family of exceptions.

Every message is one sentence that says what was wrong, with which value, and what to do about it.
"""

from __future__ import annotations

__all__ = [
    "BusyError",
    "CheckpointWarning",
    "ConfigError",
    "DeviceError",
    "InputError",
    "ModelError",
    "OutOfMemoryError",
    "OutputError",
    "ReadError",
    "T3Error",
    "TrustWarning",
    "VoxelSizeError",
]


class T3Error(Exception):
    """Base class of every error that t3ssfast raises on purpose."""


class ReadError(T3Error):
    """A file is missing, unreadable, truncated or of a kind that is not understood."""


class OutputError(T3Error):
    """Results could not be written."""


class BusyError(T3Error):
    """Another run is at work in the folder."""


class InputError(T3Error, ValueError):
    """An array has the wrong shape, dtype or values (NaN, empty mask, smaller than a window ...)."""


class VoxelSizeError(InputError):
    """The voxel size is missing, zero, negative or absurd and was not given."""


class ConfigError(T3Error, ValueError):
    """An option has a value that cannot be used."""


class ModelError(T3Error):
    """A model file cannot be read, is not what it should be, or gives unusable answers."""


class DeviceError(T3Error):
    """The device asked for is not there or cannot be used."""


class OutOfMemoryError(T3Error, MemoryError):
    """Memory could not be had, however small the pieces of the work were made."""


class CheckpointWarning(UserWarning):
    """A checkpoint belongs to other work, so the run starts from the beginning."""


class TrustWarning(UserWarning):
    """A file is used without the checks that it would otherwise have to pass."""
