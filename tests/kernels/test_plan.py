"""Plans: which models are read, how they read, and that a plan which lies is found out."""

from __future__ import annotations

import linecache
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from t3ssfast.errors import ConfigError, InputError, ModelError
from t3ssfast.kernels import _native
from t3ssfast.kernels.plan import LayerKind, Plan, estimate_cost, explain_plan, read_plan, run_model
from t3ssfast.kernels.plan.winograd import NEVER, least_of_nine

SIZE = 20


def small_lenet(*, classes: int = 2, size: int = SIZE) -> nn.Sequential:
    torch.manual_seed(0)
    side = ((size - 4) // 2 - 2) // 2
    return nn.Sequential(
        nn.Conv2d(1, 3, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(5 * side * side, 7), nn.ReLU(), nn.Linear(7, classes),
    ).eval()  # fmt: skip


class Functional(nn.Module):
    """The same layers in the functional forms that published scripts use."""

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


def kinds(plan: Plan | str) -> list[str]:
    assert isinstance(plan, Plan), plan
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
def test_every_form_of_a_model_reads_the_same(form: str) -> None:
    assert kinds(read_plan(FORMS[form](functional()), SIZE)) == FUNCTIONAL_KINDS


class Between(nn.Module):
    """A convolution, the layer in question as a module or a function, and a head that takes what comes."""

    def __init__(self, layer: nn.Module, window: int = SIZE, channels: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3)
        self.layer = layer
        example = layer(torch.randn(2, channels, window - 2, window - 2))
        self.head = nn.Linear(example.flatten(1).shape[1], 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.flatten(self.layer(self.first(x)), 1))


class Tail(nn.Module):
    """A small classifier and what may stand behind it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 5)
        self.hidden = nn.Linear(2 * 16 * 16, 4)
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.hidden(torch.relu(self.first(x)).flatten(1)))


class FunctionOf(nn.Module):
    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.register_buffer("mean", torch.randn(3))
        self.register_buffer("variance", torch.rand(3) + 0.5)
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 2) / 4)


def function_of(source: str) -> nn.Module:
    """A module whose forward returns `source`, written out so that it can be scripted, too."""
    namespace: dict[str, object] = {"torch": torch, "nn": nn, "F": F}
    name = f"test_plan_function_{abs(hash(source))}"
    text = f"def forward(self, x: torch.Tensor) -> torch.Tensor:\n    return {source}\n"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), namespace)
    return type("Function", (FunctionOf,), {"forward": namespace["forward"]})(source)


def trained(norm: nn.Module) -> nn.Module:
    """A normalisation with statistics and weights that are not those it begins with."""
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
    "batch norm": (lambda: trained(nn.BatchNorm2d(3)), []),
    "batch norm without weights": (lambda: trained(nn.BatchNorm2d(3, affine=False)), []),
    "batch_norm()": (
        lambda: function_of("F.batch_norm(x, self.mean, self.variance, None, None, False, 0.1, 1e-3)"),
        [],
    ),
    "batch norm behind relu": (
        lambda: nn.Sequential(nn.ReLU(), trained(nn.BatchNorm2d(3)), nn.Tanh()),
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
    "batch norm 1d": (lambda: trained(nn.BatchNorm1d(4)), []),
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


def check_read(model: nn.Module, form: str, wanted: list[str]) -> None:
    """The model reads as `wanted`, and the plan answers as it does on windows that reading has not tried."""
    given = FORMS[form](model)
    plan = read_plan(given, SIZE)
    assert kinds(plan) == wanted
    assert isinstance(plan, Plan)
    image = torch.randn(1, SIZE + 3, SIZE + 14, generator=torch.Generator().manual_seed(9))
    stack = _native.as_stack(image)
    windows = image.unfold(1, SIZE, 1).unfold(2, SIZE, 1)[0].reshape(-1, 1, SIZE, SIZE)
    for least in (1, 10):
        every = _native.as_windows(stack, SIZE, None)
        got = _native.score_windows(stack, SIZE, plan.program(), every, least_of_nine=least)
        with torch.no_grad():
            torch.testing.assert_close(got.reshape(len(got), -1).T, given(windows), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MAP_LAYERS)
def test_every_layer_on_maps_is_read_in_every_form(name: str, form: str) -> None:
    torch.manual_seed(0)
    make, reads_as = MAP_LAYERS[name]
    check_read(Between(make()).eval(), form, ["convolution", *reads_as, "linear"])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", HEAD_LAYERS)
def test_every_layer_of_a_head_is_read_in_every_form(name: str, form: str) -> None:
    torch.manual_seed(0)
    make, reads_as = HEAD_LAYERS[name]
    check_read(Tail(make()).eval(), form, ["convolution", "relu", "linear", *reads_as])


def test_steps_follow_pooling_and_floor_is_kept() -> None:
    plan = read_plan(small_lenet(size=21), 21)  # 21 -> 17 -> 8 -> 6 -> 3
    assert isinstance(plan, Plan)
    assert [layer.step for layer in plan.layers if layer.kind == LayerKind.CONVOLUTION] == [(1, 1), (2, 2)]
    assert plan.layers[plan.map_layers].kernel == (3, 3)
    assert plan.layers[plan.map_layers].step == (4, 4)
    assert plan.classes == 2


def test_a_convolution_over_the_whole_map_is_the_head() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=2), nn.ReLU(), nn.Conv2d(4, 6, 8), nn.ReLU(), nn.Conv2d(6, 2, 1),
        nn.Flatten(), nn.Softmax(1),
    ).eval()  # fmt: skip
    assert kinds(read_plan(model, SIZE)) == ["convolution", "relu", "linear", "relu", "linear", "softmax"]


def test_a_global_mean_ends_a_chain_without_linear_layers() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    assert kinds(read_plan(model, SIZE)) == ["convolution", "average_pool", "linear"]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = small_lenet()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x + torch.relu(x))


class PerWindow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = small_lenet()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net((x - x.mean(dim=(2, 3), keepdim=True)) / 2.0)


class Liar(nn.Module):
    """Reads as one chain and answers as another, by what no operation shows."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_lenet()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x if x.shape[0] == 3 else -x)


def padded() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(2 * SIZE * SIZE, 2)).eval()


def grouped() -> nn.Module:
    head = [nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(4 * 16 * 16, 2)]
    return nn.Sequential(*head).eval()


def with_nan() -> nn.Module:
    model = small_lenet()
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
        (lambda: nn.Sequential(small_lenet(), nn.Softplus()).eval(), "softplus is not among"),
        (lambda: torch.jit.optimize_for_inference(torch.jit.script(small_lenet())), "not among"),
        (lambda: Between(nn.MaxPool2d(3, padding=1)).eval(), "a pooling pads its input"),
        (lambda: Between(nn.AvgPool2d(2, padding=1)).eval(), "a pooling pads its input"),
        (lambda: Between(nn.MaxPool2d(5, ceil_mode=True)).eval(), "gives a map of shape"),
        (lambda: Between(nn.AvgPool2d(2, divisor_override=3)).eval(), "divisor of its own"),
        (lambda: Between(nn.ConvTranspose2d(3, 2, 3)).eval(), "a convolution pads"),
        (lambda: Between(nn.ReLU6()).eval(), "hardtanh is not among"),
        (lambda: Between(nn.Softmax(dim=2)).eval(), "along another axis"),
    ],
)
def test_what_cannot_be_read_says_why(make, reason: str) -> None:
    assert reason in str(read_plan(make(), SIZE))


def test_a_model_that_does_more_than_its_layers_show_is_found_out() -> None:
    assert "differs from the model" in str(read_plan(Liar().eval(), SIZE))


def test_a_wrong_plan_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from t3ssfast.kernels import plan as module

    program = Plan.program

    def bent(self: Plan) -> object:
        given = program(self)
        given.parameters[3] += 0.5
        return given

    monkeypatch.setattr(module.Plan, "program", bent)
    assert "differs from the model" in str(read_plan(small_lenet(), SIZE))


def test_a_plan_is_kept_until_the_weights_change() -> None:
    model = small_lenet()
    first = read_plan(model, SIZE)
    assert read_plan(model, SIZE) is first
    model[0].weight.data.mul_(2.0)
    second = read_plan(model, SIZE)
    assert isinstance(second, Plan)
    assert second is not first


def test_run_model_says_what_is_wrong() -> None:
    windows = torch.zeros(2, 1, SIZE, SIZE)
    with pytest.raises(ModelError, match="training mode"):
        run_model(small_lenet().train(), windows)
    with pytest.raises(ModelError, match="float64"):
        run_model(small_lenet().double(), windows)
    with pytest.raises(ModelError, match="on meta"):
        run_model(small_lenet().to("meta"), windows)
    with pytest.raises(ModelError, match=r"of 20 to 23 voxels a side"):
        run_model(small_lenet(), torch.zeros(2, 1, 30, 30))
    with pytest.raises(ModelError, match=r"with \(2, 2, 2\)"):
        run_model(nn.Sequential(small_lenet(classes=4), nn.Unflatten(1, (2, 2))).eval(), windows)
    with pytest.raises(ModelError, match="cannot be run"):
        run_model(nn.Linear(7, 2).eval(), windows)


def test_explain_plan_in_plain_sentences() -> None:
    text = explain_plan(small_lenet(), (100, 100), 0.1, "cpu", size=SIZE)
    assert 'Plan "dense"' in text
    assert "656 of 6,561 windows" in text
    assert "because a convolution pads" in explain_plan(padded(), (2, 100, 100), 1.0, "cpu", size=SIZE)
    with pytest.raises(InputError, match="at least one window"):
        explain_plan(small_lenet(), (10, 100), 1.0, "cpu", size=SIZE)
    with pytest.raises(ConfigError, match="mask_fraction"):
        explain_plan(small_lenet(), (100, 100), 2.0, "cpu", size=SIZE)


def test_cost_counts_the_published_network() -> None:
    """2.70 MFLOP window by window, 0.337 dense, as counted by hand for 6-16-120-84-2 at window 50."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1296, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 2),
    ).eval()  # fmt: skip
    plan = read_plan(model, 50)
    assert isinstance(plan, Plan)
    cost = estimate_cost(plan)
    assert cost.windows_flops == pytest.approx(2.70e6, rel=0.05)
    assert 0.337e6 < cost.dense_flops < 0.337e6 * 1.06


def test_nines_are_chosen_where_they_take_fewer_products() -> None:
    assert least_of_nine((9, 9)) == 4  # as measured; 225 products for nine windows, and 81 for one
    assert least_of_nine((3, 3)) == 4
    assert least_of_nine((1, 1)) == NEVER
    assert least_of_nine((2, 2)) == 9
    plan = read_plan(small_lenet(), SIZE)
    assert isinstance(plan, Plan)
    assert plan.program().least_of_nine == plan.least_of_nine == 4
    assert replace(plan, nines=False).program().least_of_nine == NEVER
    few, many = (estimate_cost(plan, fraction).dense_seconds for fraction in (0.01, 1.0))
    assert many < few < 4 * many
    for one_by_one in (estimate_cost(replace(plan, nines=False), f).dense_seconds for f in (0.5, 1.0)):
        assert many < one_by_one


def test_a_plan_whose_nines_round_too_coarsely_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    score = _native.score_windows

    def coarse(*arguments: object, **how: object) -> torch.Tensor:
        return score(*arguments, **how) + (1e-3 if how["least_of_nine"] == 1 else 0.0)

    monkeypatch.setattr(_native, "score_windows", coarse)
    plan = read_plan(small_lenet(), SIZE)
    assert isinstance(plan, Plan)
    assert plan.least_of_nine == NEVER
