"""Reading of models as plans: which models have one, its layers, and its check against the model."""

from __future__ import annotations

import linecache
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from lenets import lenet
from t3ssfast.errors import ModelError
from t3ssfast.kernels import _native
from t3ssfast.kernels.plan import (
    LayerKind,
    NoDensePlanError,
    Plan,
    has_dense_plan,
    read,
    read_plan,
    run_model,
)
from t3ssfast.kernels.plan.layers import WINOGRAD_OFF

SIZE = 20


class Functional(nn.Module):
    """The same kind of network in the functional forms of published scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 3, 5)
        self.norm = nn.BatchNorm2d(3)
        self.second = nn.Conv2d(3, 5, 3)
        self.drop = nn.Dropout(0.5)
        self.hidden = nn.Linear(5 * 9, 7)
        self.last = nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(torch.tanh(self.norm(self.first(x))), 2)
        x = F.avg_pool2d(F.leaky_relu(self.second(x), 0.2), 2)
        x = x.view(x.size(0), -1)
        x = self.drop(F.gelu(self.hidden(x)))
        return F.log_softmax(self.last(x), dim=1)


def functional() -> Functional:
    torch.manual_seed(1)
    model = Functional().eval()
    with torch.no_grad():
        model.norm.running_mean.normal_()
        model.norm.running_var.uniform_(0.5, 2.0)
        model.norm.weight.normal_()
    return model


def kinds(plan: Plan) -> list[str]:
    return [layer.kind.name.lower() for layer in plan.layers]


FUNCTIONAL_KINDS = [
    "convolution", "tanh", "max_pool", "convolution", "leaky_relu", "average_pool",
    "linear", "gelu", "linear", "log_softmax",
]  # fmt: skip


def as_eager(model: nn.Module) -> nn.Module:
    return model


def as_scripted(model: nn.Module) -> nn.Module:
    return torch.jit.script(model)


def as_traced(model: nn.Module) -> nn.Module:
    return torch.jit.trace(model, torch.zeros(2, 1, SIZE, SIZE))


FORMS = {
    "eager": as_eager,
    "scripted": as_scripted,
    "traced": as_traced,
    "frozen": lambda model: torch.jit.freeze(as_scripted(model)),
    "frozen trace": lambda model: torch.jit.freeze(as_traced(model)),
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_of_a_model_give_the_same_plan(form: str) -> None:
    assert kinds(read_plan(FORMS[form](functional()), SIZE)) == FUNCTIONAL_KINDS


class BetweenLayers(nn.Module):
    """A convolution, the layer under test, and a head of the matching size."""

    def __init__(self, layer: nn.Module, window: int = SIZE, channels: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3)
        self.layer = layer
        example = layer(torch.randn(2, channels, window - 2, window - 2))
        self.head = nn.Linear(example.flatten(1).shape[1], 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.flatten(self.layer(self.first(x)), 1))


class LastLayer(nn.Module):
    """A small classifier with the layer under test at its end."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 5)
        self.hidden = nn.Linear(2 * 16 * 16, 4)
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.hidden(torch.relu(self.first(x)).flatten(1)))


class FunctionModule(nn.Module):
    """Parameters and buffers for the expression that `function_of` compiles."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.register_buffer("mean", torch.randn(3))
        self.register_buffer("variance", torch.rand(3) + 0.5)
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 2) / 4)


def function_of(source: str) -> nn.Module:
    """Make a module whose forward returns an expression, with source code so that it can be scripted."""
    namespace: dict[str, object] = {"torch": torch, "nn": nn, "F": F}
    name = f"test_plan_function_{abs(hash(source))}"
    text = f"def forward(self, x: torch.Tensor) -> torch.Tensor:\n    return {source}\n"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), namespace)
    return type("Function", (FunctionModule,), {"forward": namespace["forward"]})(source)


def with_random_state(norm: nn.Module) -> nn.Module:
    """Give a normalisation statistics and weights other than its initial ones."""
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
        if norm.weight is not None:
            norm.weight.uniform_(-2.0, 2.0)
            norm.bias.normal_()
    return norm


MAP_LAYERS = {
    "conv 1x1": (lambda: nn.Conv2d(3, 4, 1), ["convolution"]),
    "conv 5x2": (lambda: nn.Conv2d(3, 4, (5, 2)), ["convolution"]),
    "conv 7x7 without bias": (lambda: nn.Conv2d(3, 2, 7, bias=False), ["convolution"]),
    "conv dilated": (lambda: nn.Conv2d(3, 4, 3, dilation=(2, 3)), ["convolution"]),
    "conv valid": (lambda: nn.Conv2d(3, 4, 3, padding="valid"), ["convolution"]),
    "conv2d()": (lambda: function_of("F.conv2d(x, self.weight)"), ["convolution"]),
    "max pool": (lambda: nn.MaxPool2d(2), ["max_pool"]),
    "max pool 3, stride 2": (lambda: nn.MaxPool2d(3, stride=2), ["max_pool"]),
    "max pool 2x3 dilated": (lambda: nn.MaxPool2d((2, 3), stride=1, dilation=2), ["max_pool"]),
    "max_pool2d()": (lambda: function_of("F.max_pool2d(x, 2)"), ["max_pool"]),
    "average pool": (lambda: nn.AvgPool2d(2), ["average_pool"]),
    "average pool 3x2, stride 1": (lambda: nn.AvgPool2d((3, 2), stride=1), ["average_pool"]),
    "avg_pool2d()": (lambda: function_of("F.avg_pool2d(x, [2, 2])"), ["average_pool"]),
    "batch norm": (lambda: with_random_state(nn.BatchNorm2d(3)), []),
    "batch norm without weights": (lambda: with_random_state(nn.BatchNorm2d(3, affine=False)), []),
    "batch_norm()": (
        lambda: function_of("F.batch_norm(x, self.mean, self.variance, None, None, False, 0.1, 1e-3)"),
        [],
    ),
    "batch norm behind relu": (
        lambda: nn.Sequential(nn.ReLU(), with_random_state(nn.BatchNorm2d(3)), nn.Tanh()),
        ["relu", "affine", "tanh"],
    ),
    "dropout": (lambda: nn.Dropout(0.5), []),
    "dropout2d": (lambda: nn.Dropout2d(0.5), []),
    "dropout()": (lambda: function_of("F.dropout(x, 0.5, self.training)"), []),
    "relu": (lambda: nn.ReLU(), ["relu"]),
    "relu in place": (lambda: nn.ReLU(inplace=True), ["relu"]),
    "relu()": (lambda: function_of("F.relu(x)"), ["relu"]),
    "x.relu()": (lambda: function_of("x.relu()"), ["relu"]),
    "leaky relu": (lambda: nn.LeakyReLU(0.3), ["leaky_relu"]),
    "leaky relu in place": (lambda: nn.LeakyReLU(0.3, inplace=True), ["leaky_relu"]),
    "leaky_relu()": (lambda: function_of("F.leaky_relu(x, 0.1)"), ["leaky_relu"]),
    "tanh": (lambda: nn.Tanh(), ["tanh"]),
    "tanh()": (lambda: function_of("torch.tanh(x)"), ["tanh"]),
    "sigmoid": (lambda: nn.Sigmoid(), ["sigmoid"]),
    "sigmoid()": (lambda: function_of("x.sigmoid()"), ["sigmoid"]),
    "gelu": (lambda: nn.GELU(), ["gelu"]),
    "gelu by tanh": (lambda: nn.GELU("tanh"), ["gelu_tanh"]),
    "gelu()": (lambda: function_of("F.gelu(x)"), ["gelu"]),
    "gelu() by tanh": (lambda: function_of("F.gelu(x, approximate='tanh')"), ["gelu_tanh"]),
    "flatten": (lambda: nn.Flatten(), []),
    "flatten()": (lambda: function_of("torch.flatten(x, 1)"), []),
    "x.view()": (lambda: function_of("x.view(-1, x.size(1) * x.size(2) * x.size(3))"), []),
    "x.reshape()": (lambda: function_of("x.reshape(x.shape[0], -1)"), []),
    "identity": (lambda: nn.Identity(), []),
}
HEAD_LAYERS = {
    "linear": (lambda: nn.Linear(4, 3), ["linear"]),
    "linear without bias": (lambda: nn.Linear(4, 3, bias=False), ["linear"]),
    "linear()": (lambda: function_of("F.linear(x, self.weight.reshape(18, 4)[:5])"), ["linear"]),
    "batch norm 1d": (lambda: with_random_state(nn.BatchNorm1d(4)), []),
    "dropout": (lambda: nn.Dropout(0.5), []),
    "relu, linear": (lambda: nn.Sequential(nn.ReLU(), nn.Linear(4, 2)), ["relu", "linear"]),
    "gelu": (lambda: nn.GELU(), ["gelu"]),
    "softmax": (lambda: nn.Softmax(dim=1), ["softmax"]),
    "softmax over the last axis": (lambda: nn.Softmax(dim=-1), ["softmax"]),
    "softmax()": (lambda: function_of("F.softmax(x, dim=1)"), ["softmax"]),
    "x.softmax()": (lambda: function_of("x.softmax(1)"), ["softmax"]),
    "log softmax": (lambda: nn.LogSoftmax(dim=1), ["log_softmax"]),
    "log_softmax()": (lambda: function_of("torch.log_softmax(x, 1)"), ["log_softmax"]),
}


def check_plan_of(model: nn.Module, form: str, expected: list[str]) -> None:
    """Check the layers of the plan, and its scores on windows that `read_plan` has not compared."""
    converted = FORMS[form](model)
    plan = read_plan(converted, SIZE)
    assert kinds(plan) == expected
    image = torch.randn(1, SIZE + 3, SIZE + 14, generator=torch.Generator().manual_seed(9))
    stack = _native.as_stack(image)
    windows = image.unfold(1, SIZE, 1).unfold(2, SIZE, 1)[0].reshape(-1, 1, SIZE, SIZE)
    all_windows = _native.as_windows(stack, SIZE, None)
    with torch.no_grad():
        wanted = converted(windows)
    for min_windows in (1, WINOGRAD_OFF):
        scores = _native.score_windows(
            stack, SIZE, plan.program(), all_windows, winograd_min_windows=min_windows
        )
        torch.testing.assert_close(scores.reshape(len(scores), -1).T, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MAP_LAYERS)
def test_every_layer_on_feature_maps_in_every_form(name: str, form: str) -> None:
    torch.manual_seed(0)
    make, layers = MAP_LAYERS[name]
    check_plan_of(BetweenLayers(make()).eval(), form, ["convolution", *layers, "linear"])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", HEAD_LAYERS)
def test_every_layer_of_the_head_in_every_form(name: str, form: str) -> None:
    torch.manual_seed(0)
    make, layers = HEAD_LAYERS[name]
    check_plan_of(LastLayer(make()).eval(), form, ["convolution", "relu", "linear", *layers])


def test_pooling_dilates_the_layers_behind_it_in_floor_mode() -> None:
    plan = read_plan(lenet(size=21), 21)  # 21 -> 17 -> 8 -> 6 -> 3
    assert [layer.dilation for layer in plan.layers if layer.kind == LayerKind.CONVOLUTION] == [
        (1, 1),
        (2, 2),
    ]
    assert plan.layers[plan.map_layers].kernel == (3, 3)
    assert plan.layers[plan.map_layers].dilation == (4, 4)
    assert plan.layers[-1].channels[1] == 2


def test_a_convolution_over_the_whole_map_is_the_head() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=2), nn.ReLU(), nn.Conv2d(4, 6, 8), nn.ReLU(), nn.Conv2d(6, 2, 1),
        nn.Flatten(), nn.Softmax(1),
    ).eval()  # fmt: skip
    assert kinds(read_plan(model, SIZE)) == ["convolution", "relu", "linear", "relu", "linear", "softmax"]


def test_a_global_mean_gets_an_identity_head() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    assert kinds(read_plan(model, SIZE)) == ["convolution", "average_pool", "linear"]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = lenet()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x + torch.relu(x))


class PerWindow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = lenet()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net((x - x.mean(dim=(2, 3), keepdim=True)) / 2.0)


class DependsOnBatchSize(nn.Module):
    """Branches on the batch size, which no recorded operation shows."""

    def __init__(self) -> None:
        super().__init__()
        self.net = lenet()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x if x.shape[0] == 3 else -x)


def padded() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(2 * SIZE * SIZE, 2)).eval()


def grouped() -> nn.Module:
    head = [nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(4 * 16 * 16, 2)]
    return nn.Sequential(*head).eval()


def with_nan() -> nn.Module:
    model = lenet()
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = float("nan")
    return model


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Residual().eval(), "earlier feature map"),
        (lambda: PerWindow().eval(), "earlier feature map"),
        (padded, "pads its input"),
        (grouped, "groups"),
        (with_nan, "NaN"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Softmax(1)).eval(), "fully connected"),
        (lambda: nn.Sequential(lenet(), nn.Softplus()).eval(), "softplus is not among"),
        (lambda: torch.jit.optimize_for_inference(torch.jit.script(lenet())), "not among"),
        (lambda: BetweenLayers(nn.MaxPool2d(3, padding=1)).eval(), "a pooling pads its input"),
        (lambda: BetweenLayers(nn.AvgPool2d(2, padding=1)).eval(), "a pooling pads its input"),
        (lambda: BetweenLayers(nn.MaxPool2d(5, ceil_mode=True)).eval(), "gives a map of shape"),
        (lambda: BetweenLayers(nn.AvgPool2d(2, divisor_override=3)).eval(), "divisor of its own"),
        (lambda: BetweenLayers(nn.ConvTranspose2d(3, 2, 3)).eval(), "a convolution pads"),
        (lambda: BetweenLayers(nn.ReLU6()).eval(), "hardtanh is not among"),
        (lambda: BetweenLayers(nn.Softmax(dim=2)).eval(), "along another axis"),
    ],
)
def test_models_without_a_plan_report_the_reason(make, reason: str) -> None:
    model = make()
    for _ in range(2):  # read, and from the cache
        with pytest.raises(NoDensePlanError, match=reason):
            read_plan(model, SIZE)
    assert not has_dense_plan(model, SIZE)


def test_a_plan_that_differs_from_the_model_is_refused() -> None:
    with pytest.raises(NoDensePlanError, match="differs from the model"):
        read_plan(DependsOnBatchSize().eval(), SIZE)


def test_a_plan_with_a_wrong_weight_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Plan.program

    def with_wrong_weight(self: Plan) -> object:
        changed = program(self)
        changed.parameters[3] += 0.5
        return changed

    monkeypatch.setattr(Plan, "program", with_wrong_weight)
    with pytest.raises(NoDensePlanError, match="differs from the model"):
        read_plan(lenet(), SIZE)


def test_a_plan_is_cached_until_the_weights_change() -> None:
    model = lenet()
    first = read_plan(model, SIZE)
    assert read_plan(model, SIZE) is first
    model[0].weight.data.mul_(2.0)
    assert read_plan(model, SIZE) is not first
    assert has_dense_plan(model, SIZE, torch.device("cpu"))


class CountedOperators(TorchDispatchMode):
    """Counts the operators that PyTorch starts."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_weights_on_a_device_are_summed_by_few_operators() -> None:
    """A detection does it for every slab: it must not take longer than a twentieth of a slab's windows."""
    words = [torch.arange(n, dtype=torch.int32) * 1_000_003 for n in (150, 6, 2400, 16, 120, 84)]
    with CountedOperators() as counted:
        read._sums(words)
    assert counted.count <= 6
    assert torch.equal(read._sums(words), read._sums([word.clone() for word in words]))
    swapped = [words[0].flip(0), *words[1:]]
    increased = [*words[:-1], words[-1] + 1]
    for changed in (swapped, increased, words[::-1]):
        assert not torch.equal(read._sums(changed), read._sums(words))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int8, torch.bool])
def test_weights_of_any_dtype_are_summed(dtype: torch.dtype) -> None:
    weights = torch.ones(7, dtype=dtype)
    assert read._sums([weights.view(read._WORDS[weights.element_size()])]).dtype == torch.int64


def test_run_model_reports_what_is_wrong() -> None:
    windows = torch.zeros(2, 1, SIZE, SIZE)
    with pytest.raises(ModelError, match="training mode"):
        run_model(lenet().train(), windows)
    with pytest.raises(ModelError, match="float64"):
        run_model(lenet().double(), windows)
    with pytest.raises(ModelError, match="on meta"):
        run_model(lenet().to("meta"), windows)
    with pytest.raises(ModelError, match=r"20, 21, 22, 23"):
        run_model(lenet(), torch.zeros(2, 1, 30, 30))
    with pytest.raises(ModelError, match=r"returns \(2, 2, 2\) for 2 windows"):
        run_model(nn.Sequential(lenet(classes=4), nn.Unflatten(1, (2, 2))).eval(), windows)
    with pytest.raises(ModelError, match="cannot be run"):
        run_model(nn.Linear(7, 2).eval(), windows)
