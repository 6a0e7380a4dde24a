"""The kernels inside torch.compile and autograd, with fake tensors, and on DLPack objects."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.torch_version import TorchVersion

from lenets import lenet, noise
from t3ssfast.errors import InputError
from t3ssfast.kernels import operators
from t3ssfast.kernels.score_windows import score_windows
from t3ssfast.kernels.unfold import unfold
from t3ssfast.kernels.window_statistics import window_statistics

MASK = torch.from_numpy(np.random.default_rng(0).random((2, 6, 9)) < 0.4)


class WithDlpack:
    """An array of another library, such as CuPy's."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradient_of_unfold(mask: torch.Tensor | None, dtype: torch.dtype) -> None:
    image = noise(2, 10, 13).to(dtype).requires_grad_()
    windows = unfold(image, 5, mask=mask)
    weight = noise(*windows.shape, seed=1)
    (windows * weight).sum().backward()
    twin = image.detach().clone().requires_grad_()
    expected = twin.unfold(-2, 5, 1).unfold(-2, 5, 1)
    expected = expected[mask] if mask is not None else expected.reshape(-1, 5, 5)
    torch.testing.assert_close(windows, expected.float())
    (expected * weight).sum().backward()
    assert image.grad is not None
    assert image.grad.dtype == dtype
    torch.testing.assert_close(image.grad, twin.grad, rtol=1e-5, atol=1e-5)


def test_gradient_of_one_image_in_half_precision() -> None:
    image = noise(10, 13).requires_grad_()
    unfold(image, 3, dtype="float16").sum().backward()
    ones = torch.ones(1, 9, 8 * 11)
    torch.testing.assert_close(image.grad, torch.nn.functional.fold(ones, (10, 13), 3)[0, 0])


# The check of PyTorch 2.14 itself reads the gradient of a tensor that is not a leaf.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("operator", ["unfold", "window_statistics"])
def test_operators_pass_the_checks_of_pytorch(operator: str, mask: torch.Tensor | None) -> None:
    image = noise(2, 10, 13).requires_grad_(operator == "unfold")
    arguments = (
        (image, 5, mask, False, torch.float32) if operator == "unfold" else (image, 5, "mean,q05", mask)
    )
    torch.library.opcheck(getattr(torch.ops.t3ssfast, operator).default, arguments)


def test_fake_tensors_have_the_shape_of_the_result() -> None:
    with FakeTensorMode(shape_env=ShapeEnv()):
        image = torch.empty(3, 100, 120, dtype=torch.int16)
        windows = operators.unfold(image, 50, None, True, torch.bfloat16)
        assert windows.shape == (3 * 51 * 71, 50, 50)
        assert windows.dtype == torch.bfloat16
        assert operators.window_statistics(image, 50, "mean,median", None).shape == (2, 3, 51, 71)
        masked = operators.window_statistics(image, 50, "mean", torch.empty(3, 51, 71, dtype=torch.bool))
        assert masked.shape[0] == 1
        assert isinstance(masked.shape[1], torch.SymInt)


def test_compiled_without_a_graph_break() -> None:
    def features(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        windows = unfold(image * 2, 5)
        return windows.square().sum((1, 2)), window_statistics(image + 1, 5, ("mean", "median")) * 3

    image = noise(2, 10, 13)
    compiled = torch.compile(features, backend="aot_eager", fullgraph=True)
    for found, expected in zip(compiled(image), features(image), strict=True):
        torch.testing.assert_close(found, expected)


def test_compiled_gradient() -> None:
    def loss(image: torch.Tensor) -> torch.Tensor:
        return unfold(image, 5).square().sum()

    image = noise(10, 13).requires_grad_()
    torch.compile(loss, backend="aot_eager", fullgraph=True)(image).backward()
    twin = image.detach().clone().requires_grad_()
    loss(twin).backward()
    torch.testing.assert_close(image.grad, twin.grad)


def test_compiled_with_a_mask() -> None:
    def count(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return window_statistics(image, 5, "max", mask=mask) + 1

    image = noise(2, 10, 13)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        found = torch.compile(count, backend="aot_eager", fullgraph=True)(image, MASK)
    torch.testing.assert_close(found, count(image, MASK))


# Earlier compilers do not pass a network to a function whose result is a constant of the compiled one.
@pytest.mark.skipif(TorchVersion(torch.__version__) < (2, 12), reason="needs PyTorch 2.12")
@pytest.mark.parametrize(
    ("mask", "stride"), [(None, 1), (MASK[:, :4, :7], 1), (None, 2), (MASK[:, :2, :4], 2)]
)
def test_compiled_scores(mask: torch.Tensor | None, stride: int) -> None:
    model = lenet()

    def scores(image: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        result: torch.Tensor = score_windows(model, image, mask=mask, size=20, stride=stride)
        return result + 1

    image = noise(2, 23, 26)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(scores, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(image, mask), scores(image, mask))
        with torch.no_grad():
            model[-1].bias += 3  # type: ignore[operator]
        torch.testing.assert_close(compiled(image, mask), scores(image, mask))


def test_kernels_do_not_import_the_compiler() -> None:
    """It takes a second, and packages that the kernels do not need."""
    code = "import sys, t3ssfast.kernels.score_windows; print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_kernels_without_a_gradient_refuse_images_that_require_one() -> None:
    image = noise(2, 30, 33).requires_grad_()
    with pytest.raises(InputError, match=r"which window_statistics does not have; give image\.detach"):
        window_statistics(image, 20)
    with pytest.raises(InputError, match=r"which score_windows does not have; give image\.detach"):
        score_windows(lenet(), image, size=20)
    with pytest.raises(InputError, match=r'which normalise="zscore" does not have'):
        unfold(image, 20, normalise="zscore")
    with torch.no_grad():
        assert window_statistics(image, 20).shape[0] == 7
        assert score_windows(lenet(), image, size=20).shape[0] == 2


def test_out_cannot_be_given_where_a_gradient_is_required() -> None:
    with pytest.raises(InputError, match="leave out None"):
        unfold(noise(5, 6).requires_grad_(), 3, out=torch.empty(12, 3, 3))


def test_dlpack_objects_give_tensors() -> None:
    array = noise(2, 10, 13).numpy()
    image, mask = WithDlpack(array), WithDlpack(MASK.numpy())
    found = unfold(image, 5, mask=mask)  # type: ignore[type-var]
    assert isinstance(found, torch.Tensor)
    assert torch.equal(found, torch.from_numpy(unfold(array, 5, mask=MASK.numpy())))
    statistics = window_statistics(image, 5, ("mean", "median"))  # type: ignore[type-var]
    assert torch.equal(statistics, torch.from_numpy(window_statistics(array, 5, ("mean", "median"))))


def test_dlpack_object_that_cannot_be_read() -> None:
    class Broken(WithDlpack):
        def __dlpack__(self, **options: Any) -> Any:
            raise BufferError("it moved")

    with pytest.raises(InputError, match=r"image of type Broken cannot be read by DLPack \(it moved\)"):
        unfold(Broken(np.zeros((5, 5), np.float32)), 3)  # type: ignore[type-var]
