"""Errors, devices and limits around the launches, with the runtime on the host."""

from __future__ import annotations

import pytest
import torch
from host_device import Extension

from lenets import lenet, noise
from t3ssfast.kernels import _native
from t3ssfast.kernels._native.extension import core
from t3ssfast.kernels.plan import Plan, read_plan

INVALID_VALUE, INSUFFICIENT_DRIVER = 1, 35


def mean(extension: Extension, index: int = 0) -> torch.Tensor:
    with extension.device() as device:
        stack = device.stack(noise(1, 12, 13), index, check=False)
        return _native.window_statistics(stack, 5, ("mean",), _native.as_windows(stack, 5, None))


def test_error_that_another_call_left_behind_is_not_reported(on_host: Extension) -> None:
    on_host.library.cuda_on_host_set_last_error(INVALID_VALUE)
    assert mean(on_host).isfinite().all()


def test_failed_call_clears_its_error(on_host: Extension) -> None:
    with pytest.raises(RuntimeError, match="Reading a device attribute failed"):
        core.score_windows_tensor_core_layout([], 0, 0, 5, 0, 0, False, 0)
    assert on_host.library.cuda_on_host_take_last_error() == 0


def test_refused_launch_is_an_error_and_leaves_none_behind(on_host: Extension) -> None:
    on_host.library.cuda_on_host_refuse_launches()
    with pytest.raises(RuntimeError, match="failed on the CUDA device: too many resources"):
        mean(on_host)
    assert on_host.library.cuda_on_host_take_last_error() == 0


def test_driver_that_is_too_old_is_an_answer(on_host: Extension) -> None:
    on_host.use(90, error=INSUFFICIENT_DRIVER)
    info = core.build_info()
    assert info["cuda_devices"] == 0
    assert "driver version is insufficient" in info["cuda_problem"]
    assert on_host.library.cuda_on_host_take_last_error() == 0


def test_second_device_creates_no_context_on_the_first(on_host: Extension) -> None:
    on_host.use(90, devices=2)
    mean(on_host, index=1)
    assert on_host.library.cuda_on_host_has_context(1)
    assert not on_host.library.cuda_on_host_has_context(0)


def test_threads_agree_on_the_shared_memory_limit(on_host: Extension) -> None:
    """The limit belongs to the kernel: with one for each model, a thread could lower that of another."""
    for hidden in ((13,), (128, 84)):
        plan = read_plan(lenet(28, (3, 5), (5, 5), hidden=hidden), 28)
        assert isinstance(plan, Plan)
        with on_host.device() as device:
            stack = device.stack(noise(1, 33, 34))
            _native.score_windows(stack, 28, plan.program(), _native.as_windows(stack, 28, None))
    assert on_host.library.cuda_on_host_limits_set() == 1
