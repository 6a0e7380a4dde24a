"""The device of a run where PyTorch finds a GPU and the native kernels cannot use it."""

from __future__ import annotations

import json
import warnings

import pytest
import torch

from command_line import CliRunner
from t3ssfast.cli import app
from t3ssfast.errors import DeviceError, DeviceWarning
from t3ssfast.kernels import _native
from t3ssfast.models import check_device

PROBLEMS = ("this build of t3ssfast has no CUDA kernels", "CUDA driver version is insufficient")


@pytest.fixture(params=PROBLEMS)
def problem(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    info = _native.build_info() | {"cuda_devices": 0, "cuda_problem": request.param}
    monkeypatch.setattr(_native, "build_info", lambda: info)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    return str(request.param)


def test_auto_is_the_cpu_with_the_reason(problem: str) -> None:
    with pytest.warns(DeviceWarning, match=problem):
        assert check_device("auto") == torch.device("cpu")


def test_cuda_is_refused_with_the_reason(problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: None)
    with pytest.raises(DeviceError, match=problem):
        check_device("cuda")
    assert check_device("cuda", kernels=False) == torch.device("cuda")


def test_runs_of_pytorch_alone_use_the_device(problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_device("auto", kernels=False) == torch.device("cuda")


def test_doctor_says_so(problem: str) -> None:
    report = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    checks = {check["name"]: check for check in report["checks"]}
    assert checks["CUDA kernels"]["value"] == f"cannot be used: {problem}"
