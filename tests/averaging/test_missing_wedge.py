"""The missing wedge compared with the angles of the tilt series."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from t3ssfast.averaging.missing_wedge import missing_wedge_weights


@pytest.mark.parametrize("tilt_range", [(-60.0, 60.0), (-40.0, 55.0), (-90.0, 90.0)])
def test_weights_follow_the_tilt_range(tilt_range):
    low, high = tilt_range
    axis = torch.arange(-20.0, 21.0)
    k = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    weight = missing_wedge_weights(k, tilt_range).numpy()
    kz, kx = k[..., 0].numpy(), k[..., 2].numpy()
    sign = np.where(kx < 0, -1, 1)
    angle, radius = np.degrees(np.arctan2(kz * sign, kx * sign)), np.hypot(kz, kx)
    margin = np.degrees(np.arcsin(np.clip(1.01 / np.maximum(radius, 1e-9), 0, 1)))
    measured = (angle >= low) & (angle <= high)
    missing = ((angle > high + margin) | (angle < low - margin)) & (radius > 3)
    # At kx = 0 the angle is both +90 and -90 degrees.
    inner = kx != 0
    np.testing.assert_allclose(weight[measured], 1, atol=1e-4)
    assert (weight[missing & inner] == 0).all()
    np.testing.assert_allclose(weight[inner], weight[::-1, ::-1, ::-1][inner])


def test_tilt_axis_is_measured_and_beam_axis_is_missing():
    assert missing_wedge_weights(torch.tensor([0.0, 7.0, 0.0]), (-60.0, 60.0)) == 1
    assert missing_wedge_weights(torch.tensor([9.0, 0.0, 0.0]), (-60.0, 60.0)) == 0
