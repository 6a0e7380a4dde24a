"""CUDA kernels against CPU kernels: order statistics and copies bit for bit, sums within rounding errors.

These tests need a CUDA device, PyTorch, NumPy and pytest, and nothing else; bench/device.sh runs them. Tests
named "tiny" run each kernel once on a small input, for compute-sanitizer.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lenets import lenet
from t3ssfast.errors import InputError
from t3ssfast.kernels import _native
from t3ssfast.kernels.plan import Plan, read_plan
from t3ssfast.kernels.score_windows import score_windows
from t3ssfast.kernels.unfold import unfold
from t3ssfast.kernels.window_statistics import window_statistics

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

ORDER = ("min", "max", "median", "q05", "q25", "q95")
MOMENTS = ("mean", "std", "variance", "skewness", "kurtosis", "energy")


def images(kind: str, shape: tuple[int, ...]) -> torch.Tensor:
    rng = np.random.default_rng(3)
    values = rng.normal(size=shape)
    if kind == "ties":
        values = np.round(values * 3)
    elif kind == "offset":
        values += 1e5
    elif kind == "hot":
        values.reshape(-1)[rng.integers(0, values.size, 5)] = 1e5
    elif kind == "constant":
        values[:] = 2.5
    return torch.from_numpy(values.astype(np.float32))


def published() -> torch.nn.Sequential:
    """A network of the published shape."""
    return lenet(50, (6, 16), (5, 5), hidden=(120, 84))


def mask_of(shape: tuple[int, ...], share: float) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(4).random(shape) < share)


@pytest.mark.parametrize("size", [1, 2, 7, 50, 64])
@pytest.mark.parametrize("normalise", [None, "zscore"])
def test_unfold_small(size: int, normalise: str | None) -> None:
    image = images("noise", (2, 70, 83))
    mask = mask_of((2, 71 - size, 84 - size), 0.1)
    expected = unfold(image, size, mask=mask, normalise=normalise)
    found = unfold(image.cuda(), size, mask=mask.cuda(), normalise=normalise)
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=0 if normalise is None else 1e-5)


@pytest.mark.parametrize("kind", ["noise", "ties", "offset", "hot", "constant"])
@pytest.mark.parametrize("size", [1, 3, 50])
def test_statistics_small(kind: str, size: int) -> None:
    image = images(kind, (2, 96, 101))
    for names, tolerance in ((ORDER, 0.0), (MOMENTS, 1e-5)):
        expected = window_statistics(image, size, names)
        found = window_statistics(image.cuda(), size, names)
        torch.testing.assert_close(
            found.cpu(), expected, rtol=tolerance, atol=tolerance, equal_nan=True, msg=f"{names} of {kind}"
        )


@pytest.mark.parametrize("share", [0.0, 0.002, 0.3])
def test_masked_statistics_small(share: float) -> None:
    image = images("noise", (3, 90, 120))
    mask = mask_of((3, 41, 71), share)
    names = (*ORDER, *MOMENTS)
    expected = window_statistics(image, 50, names, mask=mask)
    found = window_statistics(image.cuda(), 50, names, mask=mask.cuda())
    assert found.shape == expected.shape
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("share", [None, 0.0, 0.01, 0.5])
@pytest.mark.parametrize("plan", ["dense", "windows"])
def test_scores_small(share: float | None, plan: str) -> None:
    torch.manual_seed(1)
    model = lenet(50, (5, 9), (5, 5), hidden=(33, 21))
    image = images("noise", (2, 100, 91))
    mask = None if share is None else mask_of((2, 51, 42), share)
    expected = score_windows(model, image, mask=mask, plan=plan)
    found = score_windows(model.cuda(), image.cuda(), mask=None if mask is None else mask.cuda(), plan=plan)
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-4)


PRECISIONS = ("float32", "tf32", "bfloat16")
# The products are the same; the sums differ in order.
SUM_ORDER_TOLERANCE = 2e-5


def kernel_scores(
    model: torch.nn.Module, image: torch.Tensor, mask: torch.Tensor | None, device: str, **options: object
) -> torch.Tensor:
    """Return the scores of the native kernel."""
    plan = read_plan(model.cpu(), 50)
    assert isinstance(plan, Plan), plan
    stack = _native.as_stack(image.to(device))
    windows = _native.as_windows(stack, 50, None if mask is None else mask.to(device))
    return _native.score_windows(stack, 50, plan.program(), windows, **options).cpu()  # type: ignore[arg-type]


def has_tensor_cores() -> bool:
    return torch.cuda.get_device_capability() >= (8, 0)


@pytest.mark.parametrize("block_lanes", [128, 256])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("share", [None, 0.02])
def test_tensor_cores_match_emulated_warps(share: float | None, precision: str, block_lanes: int) -> None:
    if not has_tensor_cores():
        pytest.skip("no tensor cores for TF32 and bfloat16")
    shared_bytes = torch.cuda.get_device_properties(0).shared_memory_per_block_optin
    if block_lanes == 256 and shared_bytes < 160 << 10:
        pytest.skip("too little shared memory for 256 lanes per block")
    torch.manual_seed(2)
    image = images("noise", (2, 92, 131)) + 2.0
    mask = None if share is None else mask_of((2, 43, 82), share)
    model = torch.nn.Sequential(published(), torch.nn.Softmax(1)).eval()
    found = kernel_scores(
        model, image, mask, "cuda", precision=precision, schedule="tensor_core", block_lanes=block_lanes
    )
    if share is None:
        image, found = image[:1, :58, :60], found[:, :1, :9, :11]
    host = _native.HostWarps(128, wide=precision == "float32")
    expected = kernel_scores(model, image, mask, "cpu", precision=precision, host_warps=host)
    torch.testing.assert_close(found, expected, rtol=0, atol=SUM_ORDER_TOLERANCE)


def test_3xtf32_is_as_accurate_as_float32() -> None:
    if not has_tensor_cores():
        pytest.skip("no tensor cores for TF32")
    model, image = published(), images("noise", (1, 60, 70)) * 3.0
    expected = kernel_scores(model, image, None, "cpu")
    for schedule in ("tensor_core", "simt"):
        found = kernel_scores(model, image, None, "cuda", schedule=schedule)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_scores_of_each_precision_match_the_model(precision: str) -> None:
    model, image = published(), images("noise", (1, 70, 75))
    mask = mask_of((1, 21, 26), 0.3)
    expected = score_windows(model, image, mask=mask, plan="windows")
    found = score_windows(model.cuda(), image.cuda(), mask=mask.cuda(), plan="dense", precision=precision)
    tolerance = {"float32": 1e-4, "tf32": 5e-3, "bfloat16": 5e-2}[precision]
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=tolerance)


def test_scores_do_not_depend_on_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model, image, mask = published(), images("noise", (3, 80, 90)), mask_of((3, 31, 41), 0.2)
    expected = kernel_scores(model, image, mask, "cuda")
    monkeypatch.setattr(_native.tensor_core, "CUDA_MAP_BYTES", 250_000)
    assert torch.equal(kernel_scores(model, image, mask, "cuda"), expected)


def test_masked_scores_equal_the_unmasked_ones() -> None:
    model, image, mask = published(), images("noise", (2, 90, 90)), mask_of((2, 41, 41), 0.1)
    for precision in PRECISIONS:
        every_window = kernel_scores(model, image, None, "cuda", precision=precision)
        assert torch.equal(
            kernel_scores(model, image, mask, "cuda", precision=precision), every_window[:, mask].T
        )


def test_score_windows_uses_the_current_stream() -> None:
    model, image = published(), images("noise", (4, 200, 200)).cuda()
    with torch.cuda.stream(torch.cuda.Stream()):
        found = kernel_scores(model, image * 2, None, "cuda")
    assert torch.equal(found, kernel_scores(model, (image * 2).cpu(), None, "cuda"))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("schedule", ["auto", "simt"])
def test_scores_tiny(schedule: str, precision: str) -> None:
    model, image, mask = published(), images("noise", (1, 58, 60)), mask_of((1, 9, 11), 0.3)
    expected = kernel_scores(model, image, mask, "cpu")
    found = kernel_scores(model, image, mask, "cuda", schedule=schedule, precision=precision)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 if precision == "float32" else 5e-2)


def test_statistics_tiny() -> None:
    image, mask = images("noise", (1, 70, 60)), mask_of((1, 55, 45), 0.1)
    for chosen in (None, mask):
        expected = window_statistics(image, 16, (*ORDER, *MOMENTS), mask=chosen)
        given = None if chosen is None else chosen.cuda()
        found = window_statistics(image.cuda(), 16, (*ORDER, *MOMENTS), mask=given)
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-5)


def test_unfold_tiny() -> None:
    image = images("noise", (1, 20, 21))
    for normalise in (None, "zscore"):
        found = unfold(image.cuda(), 7, normalise=normalise)
        torch.testing.assert_close(found.cpu(), unfold(image, 7, normalise=normalise), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 7, 50, 200])
def test_order_statistics_equal_the_cpu_bit_for_bit(size: int) -> None:
    image = images("noise", (2, size + 150, size + 201))
    names = ("min", "max", "range", "median", "q05", "q15", "q33", "q95", "q100")
    expected = window_statistics(image, size, names)
    assert torch.equal(window_statistics(image.cuda(), size, names).cpu(), expected)
    mask = mask_of(expected.shape[1:], 0.01)
    assert torch.equal(
        window_statistics(image.cuda(), size, names, mask=mask.cuda()).cpu(), expected[:, mask]
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_unfold_to_every_dtype(dtype: torch.dtype) -> None:
    image, mask = images("noise", (2, 70, 90)), mask_of((2, 21, 41), 0.2)
    for chosen in (None, mask):
        found = unfold(image.cuda(), 50, mask=chosen, dtype=dtype)
        assert torch.equal(found.cpu(), unfold(image, 50, mask=chosen, dtype=dtype))


def test_statistics_use_the_current_stream() -> None:
    image = images("noise", (4, 300, 300)).cuda()
    with torch.cuda.stream(torch.cuda.Stream()):
        found = window_statistics(image * 2, 20, ORDER)
    torch.cuda.synchronize()
    assert torch.equal(found.cpu(), window_statistics((image * 2).cpu(), 20, ORDER))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_first_value_that_is_not_finite_tiny(value: float) -> None:
    image = images("noise", (3, 40, 61)).cuda()
    image[2, 1, 3] = value
    image[1, 39, 5] = value
    with pytest.raises(InputError, match=r"index \(1, 39, 5\)"):
        window_statistics(image, 7, ("mean",))


@pytest.mark.parametrize("shape", [(7, 9), (1021, 1024)])
def test_levels_equal_the_cpu_bit_for_bit_tiny(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    below, middle, above = torch.from_numpy(rng.integers(0, 511, (3, *shape)).astype(np.float32) / 510)
    expected, found = torch.empty(shape, dtype=torch.uint8), torch.empty(shape, dtype=torch.uint8).cuda()
    assert _native.probability_levels(
        (below, middle, above), (0.25, 0.5, 0.25), expected, device=torch.device("cpu")
    )
    first = torch.full((1,), below.numel(), dtype=torch.int64).cuda()
    for value in (0.5, float("nan"), float("inf")):
        above.view(-1)[-2:] = value
        slices = (below.cuda(), middle.cuda(), above.cuda())
        _native.probability_levels(
            slices, (0.25, 0.5, 0.25), found, device=found.device, first_nonfinite=first
        )
        assert torch.equal(found.cpu().view(-1)[:-2], expected.view(-1)[:-2])
        assert int(first) == below.numel() - (0 if value == 0.5 else 2)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_second_device() -> None:
    image = images("noise", (1, 60, 70)).to("cuda:1")
    found = window_statistics(image, 7, ORDER)
    assert found.device == image.device
    assert torch.equal(found.cpu(), window_statistics(image.cpu(), 7, ORDER))
    assert torch.cuda.current_device() == 0
