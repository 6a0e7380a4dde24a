"""Stand-in for `t3ssfast.classify.score_windows`: a LeNet, dense by dilated convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn


def score_windows(
    model: nn.Module, image: npt.NDArray[np.float32], *, mask: npt.NDArray[np.bool_], size: int
) -> npt.NDArray[np.float32]:
    """(M, C) answers of a LeNet at the windows of a mask (index = top-left corner)."""
    features: Any = model.features
    conv1, conv2 = features[0], features[3]
    fc: list[Any] = [m for m in model.classifier if isinstance(m, nn.Linear)]  # type: ignore[union-attr]
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows) == 0:
        return np.zeros((0, fc[2].out_features), np.float32)
    columns = np.flatnonzero(mask.any(axis=0))
    top, left = rows[0], columns[0]
    cut = image[top : rows[-1] + size, left : columns[-1] + size]
    where = torch.from_numpy(mask[top : rows[-1] + 1, left : columns[-1] + 1])
    device = conv1.weight.device
    with torch.inference_mode():
        x = torch.from_numpy(np.ascontiguousarray(cut))[None, None].to(device)
        x = F.max_pool2d(F.relu(conv1(x)), 2, 1)
        x = F.relu(F.conv2d(x, conv2.weight, conv2.bias, dilation=2))
        x = F.max_pool2d(x, 2, 1, dilation=2)
        side = round((fc[0].in_features // conv2.out_channels) ** 0.5)
        weight = fc[0].weight.reshape(-1, conv2.out_channels, side, side)
        x = F.relu(F.conv2d(x, weight, fc[0].bias, dilation=4))
        x = x[0, :, : where.shape[0], : where.shape[1]][:, where.to(device)].T
        answers: npt.NDArray[np.float32] = fc[2](F.relu(fc[1](x))).cpu().numpy()
    return answers
