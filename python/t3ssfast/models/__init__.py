"""The networks, and the TorchScript files that carry them together with what they were made for.

A model file is TorchScript with one JSON document inside it (`ModelMetadata`), so that a file alone says on
which voxel size, window, normalisation and contrast it may be used.
"""

from __future__ import annotations

from t3ssfast.models.boxnet import DEFAULT_BOX_PX, BoxNet
from t3ssfast.models.device import check_device
from t3ssfast.models.files import load_model, save_model
from t3ssfast.models.lenet import LeNet
from t3ssfast.models.loaded import LoadedModel
from t3ssfast.models.metadata import BOX_ANSWERS, ModelMetadata, code_version
from t3ssfast.models.unet import UNet

__all__ = [
    "BOX_ANSWERS",
    "DEFAULT_BOX_PX",
    "BoxNet",
    "LeNet",
    "LoadedModel",
    "ModelMetadata",
    "UNet",
    "check_device",
    "code_version",
    "load_model",
    "save_model",
]
