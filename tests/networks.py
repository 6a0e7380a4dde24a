"""Small segmenters, and the engines that can run them here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from t3ssfast.detection.normalise import neighbouring_slices
from t3ssfast.detection.segment_slice import segment_slice
from t3ssfast.kernels._native import openvino_version
from t3ssfast.models import LoadedModel, ModelMetadata, UNet

openvino_only = pytest.mark.skipif(openvino_version() is None, reason="OpenVINO is not installed")
ENGINES = ["torch", pytest.param("openvino", marks=openvino_only)]


def loaded_segmenter(net: nn.Module) -> LoadedModel:
    """A network as a loaded segmenter."""
    return LoadedModel(net.eval(), ModelMetadata("segmenter", 13.6), "0", "test")


def small_unet() -> LoadedModel:
    """A U-Net of depth 4 with random weights."""
    torch.manual_seed(0)
    net = UNet(depth=4, base=2)
    # Batch statistics unlike those of a fresh network, so that folding them matters.
    net.train()
    with torch.no_grad():
        for _ in range(5):
            net(torch.randn(4, 1, 32, 32))
    return loaded_segmenter(net)


def segment(slab: np.ndarray | torch.Tensor, model: LoadedModel, **options: object) -> np.ndarray:
    """Membrane probability of the slices of a slab, each segmented with its neighbours."""
    slices = [neighbouring_slices(slab, z, model.metadata.slices) for z in range(len(slab))]
    return np.stack([segment_slice(around, model, **options) for around in slices])  # type: ignore[arg-type]
