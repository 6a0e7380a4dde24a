"""Plans: which models are read, how they read, and that a plan which lies is found out."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from t3ssfast.errors import ConfigError, InputError, ModelError
from t3ssfast.plan import LayerKind, Plan, estimate_cost, explain_plan, read_plan, run_model

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


@pytest.mark.parametrize("form", ["eager", "scripted", "traced", "frozen", "frozen trace"])
def test_every_form_of_a_model_reads_the_same(form: str) -> None:
    model: nn.Module = functional()
    example = torch.zeros(2, 1, SIZE, SIZE)
    if form in ("scripted", "frozen"):
        model = torch.jit.script(model)
    if "trace" in form:
        model = torch.jit.trace(model, example)
    if "frozen" in form:
        model = torch.jit.freeze(model)
    assert kinds(read_plan(model, SIZE)) == FUNCTIONAL_KINDS


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
    ],
)
def test_what_cannot_be_read_says_why(make, reason: str) -> None:
    assert reason in str(read_plan(make(), SIZE))


def test_a_model_that_does_more_than_its_layers_show_is_found_out() -> None:
    assert "differs from the model" in str(read_plan(Liar().eval(), SIZE))


def test_a_wrong_plan_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from t3ssfast import plan as module

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
