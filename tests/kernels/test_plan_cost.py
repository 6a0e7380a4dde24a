"""The cost model of plans, its explanation, and the choice of Winograd."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from lenets import lenet
from t3ssfast.errors import ConfigError, InputError
from t3ssfast.kernels import _native
from t3ssfast.kernels.plan import estimate_cost, explain_plan, read_plan
from t3ssfast.kernels.plan.layers import WINOGRAD_OFF, winograd_min_windows

SIZE = 20


def test_explain_plan() -> None:
    text = explain_plan(lenet(), (100, 100), 0.1, "cpu", size=SIZE)
    assert 'Plan "dense"' in text
    assert "656 of 6,561 windows" in text
    padded = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(2 * SIZE * SIZE, 2)).eval()
    assert "because a convolution pads" in explain_plan(padded, (2, 100, 100), 1.0, "cpu", size=SIZE)
    with pytest.raises(InputError, match="at least one window"):
        explain_plan(lenet(), (10, 100), 1.0, "cpu", size=SIZE)
    with pytest.raises(ConfigError, match="mask_fraction"):
        explain_plan(lenet(), (100, 100), 2.0, "cpu", size=SIZE)


def test_cost_counts_the_published_network() -> None:
    """Counted by hand for 6-16-120-84-2 at window 50: 2.70 MFLOP window by window, 0.337 MFLOP dense."""
    model = lenet(50, (6, 16), (5, 5), hidden=(120, 84))
    cost = estimate_cost(read_plan(model, 50))
    assert cost.windows_flops == pytest.approx(2.70e6, rel=0.05)
    assert 0.337e6 < cost.dense_flops < 0.337e6 * 1.06


def test_winograd_is_chosen_where_it_is_cheaper() -> None:
    assert winograd_min_windows((9, 9)) == 4  # as measured: 225 products for nine windows, 81 for one
    assert winograd_min_windows((3, 3)) == 4
    assert winograd_min_windows((1, 1)) == WINOGRAD_OFF
    assert winograd_min_windows((2, 2)) == 9
    plan = read_plan(lenet(), SIZE)
    without_winograd = replace(plan, winograd=False)
    assert plan.program().winograd_min_windows == plan.winograd_min_windows == 4
    assert without_winograd.program().winograd_min_windows == WINOGRAD_OFF
    few, many = (estimate_cost(plan, fraction).dense_seconds for fraction in (0.01, 1.0))
    assert many < few < 4 * many
    for fraction in (0.5, 1.0):
        assert many < estimate_cost(without_winograd, fraction).dense_seconds


def test_winograd_is_switched_off_if_only_it_differs_from_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    score = _native.score_windows

    def inaccurate_winograd(*arguments: object, **options: object) -> torch.Tensor:
        return score(*arguments, **options) + (1e-3 if options["winograd_min_windows"] == 1 else 0.0)

    monkeypatch.setattr(_native, "score_windows", inaccurate_winograd)
    assert read_plan(lenet(), SIZE).winograd_min_windows == WINOGRAD_OFF
