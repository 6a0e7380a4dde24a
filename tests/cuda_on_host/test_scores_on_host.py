"""score_windows: the CUDA sources on the host against the CPU kernel."""

from __future__ import annotations

import pytest
import torch
from host_device import Extension
from torch import nn

import t3ssfast as t3
from lenets import lenet, noise
from t3ssfast.kernels import _native
from t3ssfast.kernels._native import simt, tensor_core
from t3ssfast.kernels.plan import Plan, read_plan

PRECISIONS = ("float32", "tf32", "bfloat16")
# Relative to the largest score, or 1.
TOLERANCE = {"float32": 2e-6, "tf32": 3e-3, "bfloat16": 3e-2}
SIZE = 28
SCHEDULES = {"forward": ("forward", False), "reversed": ("reversed", True), "shuffled": ("shuffled", True)}


class Normalised(nn.Module):
    """Every element-wise layer, average pooling, a dilated convolution and a wide last layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.norm = nn.BatchNorm2d(4)
        nn.init.uniform_(self.norm.running_mean, -0.5, 0.5)
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 9, 4, dilation=2)
        self.hidden, self.last = nn.Linear(9 * 36, 40), nn.Linear(40, 11)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.first(x * 0.5 + 0.25))
        x = nn.functional.avg_pool2d(self.norm(x), 3, 2)
        x = nn.functional.leaky_relu(self.second(x), 0.1)
        x = nn.functional.gelu(self.hidden(x.flatten(1)))
        return torch.log_softmax(self.last(torch.sigmoid(x)), 1)


MODELS = {
    "narrow": lenet(SIZE, (3, 5), (5, 5), hidden=(13,)),
    "wide": lenet(SIZE, (6, 16), (5, 5), hidden=(128, 84), classes=3),
    "softmax": nn.Sequential(*lenet(SIZE, (4, 4), (5, 5), hidden=(17, 6)), nn.Softmax(1)).eval(),
    "normalised": Normalised().eval(),
}


def plan_of(model: nn.Module, size: int) -> Plan:
    plan = read_plan(model, size)
    assert isinstance(plan, Plan), plan
    return plan


def scores(
    extension: Extension,
    model: nn.Module,
    image: torch.Tensor,
    mask: torch.Tensor | None,
    size: int = SIZE,
    **options: object,
) -> torch.Tensor:
    program = plan_of(model, size).program()
    with extension.device() as device:
        stack = device.stack(image)
        windows = _native.as_windows(stack, size, mask)
        return _native.score_windows(stack, size, program, windows, **options)  # type: ignore[arg-type]


def inputs(size: int = SIZE, masked: bool = True, rows: int = 11) -> tuple[torch.Tensor, torch.Tensor | None]:
    image = noise(2, size + rows - 1, size + 16)
    image[0] += 3
    if not masked:
        return image, None
    mask = torch.rand(2, rows, 17, generator=torch.Generator().manual_seed(2)) < 0.05
    mask[1, -1, -1] = True
    mask[1, 3:5] = True
    return image, mask


def assert_close(found: torch.Tensor, expected: torch.Tensor, precision: str) -> None:
    scale = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE[precision] * scale)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("block_lanes", "order"), [(0, "reversed"), (256, "shuffled")])
def test_tensor_cores_masked(
    on_host: Extension, name: str, precision: str, block_lanes: int, order: str
) -> None:
    on_host.schedule(*SCHEDULES[order])
    image, mask = inputs()
    options = {"precision": precision, "schedule": "tensor_core", "block_lanes": block_lanes}
    found = scores(on_host, MODELS[name], image, mask, **options)
    expected = t3.score_windows(MODELS[name], image, mask=mask, size=SIZE, plan="dense")
    assert_close(found, expected, precision)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("precision", "order"), list(zip(PRECISIONS, SCHEDULES, strict=True)))
def test_tensor_cores_dense(on_host: Extension, name: str, precision: str, order: str) -> None:
    on_host.schedule(*SCHEDULES[order])
    image, _ = inputs(masked=False)
    found = scores(on_host, MODELS[name], image, None, precision=precision, schedule="tensor_core")
    expected = t3.score_windows(MODELS[name], image, size=SIZE, plan="dense")
    assert_close(found, expected, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_pipeline_wraps(precision: str) -> None:
    """The first fully connected layer has more chunks than the pipeline has slots."""
    rows = plan_of(MODELS["wide"], SIZE).program().rows
    inputs_per_window = 4 * 4 * 16
    words = inputs_per_window // (2 if precision == "bfloat16" else 1)
    assert len(rows) > 5
    assert words // 32 >= 4


@pytest.mark.parametrize("precision", PRECISIONS)
def test_published_network(on_host: Extension, precision: str) -> None:
    on_host.schedule("shuffled", late=True)
    model = lenet(50, (6, 16), (5, 5), hidden=(120, 84))
    image, mask = noise(1, 57, 63), torch.rand(1, 8, 14, generator=torch.Generator().manual_seed(1)) < 0.2
    found = scores(on_host, model, image, mask, 50, precision=precision)
    expected = t3.score_windows(model, image, mask=mask, size=50, plan="dense")
    assert_close(found, expected, precision)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("megabytes", [0, 40_000])
def test_batches_of_rows_and_of_images(
    on_host: Extension, masked: bool, megabytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_core, "CUDA_MAP_BYTES", max(1, megabytes))
    image, mask = inputs(masked=masked)
    found = scores(on_host, MODELS["narrow"], image, mask, precision="tf32")
    expected = t3.score_windows(MODELS["narrow"], image, mask=mask, size=SIZE, plan="dense")
    assert_close(found, expected, "tf32")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("order", SCHEDULES)
@pytest.mark.parametrize("masked", [True, False])
def test_simt(
    on_host: Extension, name: str, order: str, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simt, "CUDA_TILE", 8)
    monkeypatch.setattr(simt, "CUDA_WINDOWS", 200)
    on_host.schedule(*SCHEDULES[order])
    image, mask = inputs(masked=masked)
    found = scores(on_host, MODELS[name], image, mask, schedule="simt")
    expected = t3.score_windows(MODELS[name], image, mask=mask, size=SIZE, plan="dense")
    assert_close(found, expected, "float32")


@pytest.mark.parametrize("architecture", [75, 80, 86, 89, 90, 100, 120])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_architecture(on_host: Extension, architecture: int, precision: str) -> None:
    on_host.use(architecture)
    on_host.schedule("forward", late=True)
    image, mask = inputs()
    found = scores(on_host, MODELS["wide"], image, mask, precision=precision)
    expected = t3.score_windows(MODELS["wide"], image, mask=mask, size=SIZE, plan="dense")
    assert_close(found, expected, precision)
    used_tensor_cores = any(launch.products for launch in on_host.counts())
    assert used_tensor_cores == (architecture >= 80)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("architecture", "blocks"), [(80, 1), (86, 2), (90, 2), (120, 2)])
def test_blocks_are_as_large_as_the_device_needs(
    on_host: Extension, architecture: int, blocks: int, precision: str
) -> None:
    """A multiprocessor holds two blocks of 128 lanes on sm_90, one on the others, and one of 256 on sm_80."""
    image = noise(1, SIZE + 10, SIZE + 14)  # 165 windows: two blocks of 128 rows, one of 256
    barriers = []
    for device, block_lanes in ((90, 128), (architecture, 0)):
        on_host.use(device)
        options = {"precision": precision, "schedule": "tensor_core", "block_lanes": block_lanes}
        scores(on_host, MODELS["wide"], image, None, **options)
        barriers.append(on_host.counts()[-1].barriers)
    assert barriers[1] / barriers[0] == blocks / 2


@pytest.mark.parametrize("architecture", [86, 90])
def test_shared_memory_is_checked_for_the_rows_of_the_block(on_host: Extension, architecture: int) -> None:
    """Blocks of 256 lanes have 256 rows, which do not fit 99 KiB."""
    on_host.use(architecture)
    image, mask = inputs()
    options = {"schedule": "tensor_core", "block_lanes": 256}
    if architecture == 86:
        with pytest.raises(ValueError, match="larger than shared memory"):
            scores(on_host, MODELS["wide"], image, mask, **options)
    else:
        scores(on_host, MODELS["wide"], image, mask, **options)
