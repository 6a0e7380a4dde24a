"""Networks, and the files that hold them with their `ModelMetadata`."""

from __future__ import annotations

from t3ssfast.models.axialnet import AZIMUTHS, DEFAULT_HEIGHT_PX, AxialKindNet, AxialNet
from t3ssfast.models.converting import convert_model
from t3ssfast.models.device import check_device
from t3ssfast.models.lenet import LeNet
from t3ssfast.models.loaded import LoadedModel
from t3ssfast.models.loading import load_model
from t3ssfast.models.metadata import (
    MAX_SLICES,
    VERIFIER_ANSWERS,
    ModelMetadata,
    code_version,
    verifier_answers,
)
from t3ssfast.models.saving import check_format, other_format, save_model, save_trained
from t3ssfast.models.unet import UNet

__all__ = [
    "AZIMUTHS",
    "DEFAULT_HEIGHT_PX",
    "MAX_SLICES",
    "VERIFIER_ANSWERS",
    "AxialKindNet",
    "AxialNet",
    "LeNet",
    "LoadedModel",
    "ModelMetadata",
    "UNet",
    "check_device",
    "check_format",
    "code_version",
    "convert_model",
    "load_model",
    "other_format",
    "save_model",
    "save_trained",
    "verifier_answers",
]
