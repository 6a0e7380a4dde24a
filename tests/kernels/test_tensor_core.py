"""The tensor-core path of score_windows: fragments, number formats, and the path on emulated warps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from t3ssfast import _core
from t3ssfast.kernels import _native
from t3ssfast.kernels.plan import Plan, read_plan

PRECISIONS = {"float32": 0, "tf32": 1, "bfloat16": 2}
# Relative to the largest score, or 1: the error of the 3xTF32 split, and the rounding errors of 10 and 7 bits
# of mantissa in sums of hundreds of products.
TOLERANCE = {"float32": 2e-6, "tf32": 2e-3, "bfloat16": 2e-2}


# ------------------------------------------------------------------------------------------------ fragments


def documented(lane: int, shape: str) -> tuple[list[tuple[int, int]], ...]:
    """Return the elements of A (row, k), B (k, column) and D (row, column) of a lane, from the PTX ISA."""
    group, thread = lane >> 2, lane % 4
    d = [(group + (8 if i >= 2 else 0), thread * 2 + (i & 1)) for i in range(4)]
    if shape == "m16n8k8":  # .tf32
        a = [(group if i in (0, 2) else group + 8, thread if i in (0, 1) else thread + 4) for i in range(4)]
        return a, [(thread, group), (thread + 4, group)], d
    a = [
        (group if i in (0, 1, 4, 5) else group + 8, thread * 2 + (i & 1) + (0 if i < 4 else 8))
        for i in range(8)
    ]
    return a, [(thread * 2 + (i & 1) + (0 if i < 2 else 8), group) for i in range(4)], d


@pytest.mark.parametrize("shape", ["m16n8k8", "m16n8k16"])
def test_fragment_layout_matches_the_ptx_documentation(shape: str) -> None:
    halves = 1 if shape == "m16n8k8" else 2
    for lane in range(32):
        rows, columns, sums = _core.fragment_layout(lane)
        a, b, d = documented(lane, shape)
        assert [(r, w * halves + h) for r, w in rows for h in range(halves)] == a
        assert [(w * halves + h, c) for w, c in columns[:2] for h in range(halves)] == b
        assert sums == d


def test_every_element_belongs_to_one_lane() -> None:
    rows, columns, sums = zip(*(_core.fragment_layout(lane) for lane in range(32)), strict=True)
    assert sorted(itertools.chain(*rows)) == list(itertools.product(range(16), range(8)))
    assert sorted(c for lane in columns for c in lane[:2]) == list(itertools.product(range(8), range(8)))
    assert sorted(itertools.chain(*sums)) == list(itertools.product(range(16), range(8)))


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_emulated_products_equal_matrix_products(precision: str) -> None:
    rng = np.random.default_rng(0)
    halves = 1 if precision == "tf32" else 2
    depth = 8 * halves
    # Small integers: every product and every sum is exact in any order.
    a, b = rng.integers(-64, 64, (16, depth)), rng.integers(-64, 64, (depth, 8))
    d = rng.integers(-999, 999, (16, 8))
    words = np.zeros((32, 4), np.uint32), np.zeros((32, 2), np.uint32)
    sums = np.zeros((32, 4), np.float32)

    def word(values: list[int]) -> int:
        bits = np.array(values, np.float32).view(np.uint32)
        return int(bits[0]) if len(values) == 1 else int(bits[0] >> 16 | bits[1] & 0xFFFF0000)

    for lane in range(32):
        rows, columns, accumulators = _core.fragment_layout(lane)
        words[0][lane] = [word([a[r, w * halves + h] for h in range(halves)]) for r, w in rows]
        words[1][lane] = [word([b[w * halves + h, c] for h in range(halves)]) for w, c in columns[:2]]
        sums[lane] = [d[r, c] for r, c in accumulators]
    _core.multiply_fragments(
        PRECISIONS[precision], words[0].ctypes.data, words[1].ctypes.data, sums.ctypes.data
    )
    want = d + a @ b
    for lane in range(32):
        assert [want[r, c] for r, c in _core.fragment_layout(lane)[2]] == sums[lane].tolist()


# ------------------------------------------------------------------------------------------- number formats


def operands_of(values: np.ndarray, precision: str) -> np.ndarray:
    operands = np.zeros((len(values), 2 if precision == "float32" else 1), np.float32)
    _core.convert_to_operands(PRECISIONS[precision], values.ctypes.data, len(values), operands.ctypes.data)
    return operands


def rounded_to_tf32(values: np.ndarray) -> np.ndarray:
    """Round to 11 significant bits, ties away from zero, without bit operations."""
    mantissa, exponent = np.frexp(values.astype(np.float64))
    return np.ldexp(np.trunc(mantissa * 2048 + np.copysign(0.5, mantissa)), exponent - 11).astype(np.float32)


ORDINARY = st.floats(-(2.0**100), 2.0**100, width=32).filter(lambda v: v == 0 or abs(v) > 2.0**-80)


@settings(deadline=None, max_examples=50)
@given(st.lists(ORDINARY, min_size=1, max_size=50))
def test_tf32_rounding_and_3xtf32_split(numbers: list[float]) -> None:
    values = np.array(numbers, np.float32)
    np.testing.assert_array_equal(operands_of(values, "tf32")[:, 0], rounded_to_tf32(values))
    big, small = operands_of(values, "float32").astype(np.float64).T
    np.testing.assert_array_equal(big, rounded_to_tf32(values))
    # Tensor cores ignore the last 13 bits of the small term.
    seen = (small.astype(np.float32).view(np.uint32) & 0xFFFFE000).view(np.float32)
    assert np.all(np.abs(big + seen - values) <= 2.0**-21 * np.abs(values.astype(np.float64)))


def test_rounding_of_ties_infinities_and_nan() -> None:
    ties = np.array([1 + 2.0**-11, -1 - 2.0**-11, 1 + 3 * 2.0**-11, np.inf, -np.inf], np.float32)
    want = [1 + 2.0**-10, -1 - 2.0**-10, 1 + 2.0**-9, np.inf, -np.inf]
    assert operands_of(ties, "tf32")[:, 0].tolist() == want
    nan = np.array([0x7FFFFFFF, 0x7FC00000, 0xFFC00001], np.uint32).view(np.float32)
    for precision in PRECISIONS:
        assert np.isnan(operands_of(nan, precision).sum(axis=1)).all()


def test_bfloat16_rounding_matches_torch() -> None:
    values = np.random.default_rng(1).normal(size=1000).astype(np.float32)
    values[:3] = 1 + 2.0**-8, 1 + 3 * 2.0**-8, -0.0
    want = torch.from_numpy(values).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(operands_of(values, "bfloat16")[:, 0], want)


# ------------------------------------------------------------------------------------------ emulated warps


def lenet(
    channels: tuple[int, int] = (3, 5), hidden: tuple[int, ...] = (13,), classes: int = 2, size: int = 20
) -> nn.Sequential:
    torch.manual_seed(0)
    side = ((size - 4) // 2 - 2) // 2
    layers: list[nn.Module] = [
        nn.Conv2d(1, channels[0], 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(channels[0], channels[1], 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
    ]  # fmt: skip
    width = channels[1] * side * side
    for out in hidden:
        layers += [nn.Linear(width, out), nn.ReLU()]
        width = out
    return nn.Sequential(*layers, nn.Linear(width, classes)).eval()


class Normalised(nn.Module):
    """A network with element-wise layers first, tanh, average pooling and log-softmax."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.norm = nn.BatchNorm2d(4)
        nn.init.uniform_(self.norm.running_mean, -0.5, 0.5)
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 9, 4, dilation=2)
        self.hidden, self.last = nn.Linear(9 * 4, 40), nn.Linear(40, 11)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.first(x * 0.5 + 0.25))
        x = nn.functional.avg_pool2d(self.norm(x), 3, 2)
        x = nn.functional.leaky_relu(self.second(x), 0.1)
        x = nn.functional.gelu(self.hidden(x.flatten(1)))
        return torch.log_softmax(self.last(torch.sigmoid(x)), 1)


MODELS = {
    "lenet": lenet(),
    "wide": lenet((6, 16), (128, 84), 3),
    "no hidden layer": lenet((2, 8), (), 9),
    "softmax": nn.Sequential(*lenet((4, 4), (7, 6)), nn.Softmax(1)).eval(),
    "normalised": Normalised().eval(),
}
HOSTS = [
    _native.HostWarps(32),
    _native.HostWarps(128, reversed=True, late=True),
    _native.HostWarps(128, late=True, wide=False),
    _native.HostWarps(256, reversed=True, fully_connected_bytes=224 << 10),
    _native.HostWarps(256, reversed=True, late=True, wide=False, fully_connected_bytes=160 << 10),
]


def example(
    name: str, height: int = 41, width: int = 53
) -> tuple[Plan, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a plan, images, a mask, and the model's scores of each masked window: (M, C)."""
    model, size = MODELS[name], 20
    plan = read_plan(model, size)
    assert isinstance(plan, Plan), plan
    image = torch.randn(3, height, width, generator=torch.Generator().manual_seed(1))
    image[0] += 4.0
    chosen = torch.rand(3, height - 19, width - 19, generator=torch.Generator().manual_seed(2)) < 0.02
    chosen[1] = False
    chosen[2, 5:8, 3:30] = True
    chosen[2, -1, -1] = True
    windows = image.unfold(1, size, 1).unfold(2, size, 1)[chosen]
    with torch.no_grad():
        return plan, image, chosen, model(windows[:, None])


def emulated_scores(
    plan: Plan, image: torch.Tensor, mask: torch.Tensor | None, host: _native.HostWarps, precision: str
) -> torch.Tensor:
    stack = _native.as_stack(image)
    windows = _native.as_windows(stack, plan.size, mask)
    program = plan.program()
    return _native.score_windows(stack, plan.size, program, windows, precision=precision, host_warps=host)


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("precision", list(PRECISIONS))
def test_scores_match_the_model_on_single_windows(name: str, precision: str) -> None:
    plan, image, mask, want = example(name)
    got = emulated_scores(plan, image, mask, _native.HostWarps(128, late=True), precision)
    error = (got - want).abs().max().item()
    assert error <= TOLERANCE[precision] * max(1.0, want.abs().max().item())
    if precision != "float32":  # the requested precision was used
        assert error > TOLERANCE["float32"]


@pytest.mark.parametrize("host", HOSTS, ids=str)
@pytest.mark.parametrize("precision", list(PRECISIONS))
def test_scores_do_not_depend_on_warp_order_or_late_copies(host: _native.HostWarps, precision: str) -> None:
    plan, image, mask, _ = example("wide", 27, 33)
    first = emulated_scores(plan, image, mask, _native.HostWarps(64), precision)
    assert torch.equal(emulated_scores(plan, image, mask, host, precision), first)


def test_3xtf32_is_as_accurate_as_float32_with_an_offset() -> None:
    """Sums of 600 products of values around 1000, where a single TF32 product has an error above 0.1."""
    model = lenet((4, 16), (20,), size=20)
    plan = read_plan(model, 20)
    assert isinstance(plan, Plan)
    image = 1000.0 + torch.randn(22, 22, generator=torch.Generator().manual_seed(3))
    windows = image.unfold(0, 20, 1).unfold(1, 20, 1).reshape(-1, 1, 20, 20)
    with torch.no_grad():
        want = model.double()(windows.double()).T.reshape(2, 3, 3).float()
    model.float()
    error = {
        p: (emulated_scores(plan, image, None, HOSTS[0], p) - want).abs().max().item()
        for p in ("float32", "tf32")
    }
    assert error["float32"] <= 1e-6 * want.abs().max().item()
    assert error["tf32"] > 30 * error["float32"]


def test_scores_match_the_simt_path() -> None:
    plan, image, mask, _ = example("lenet")
    every_window = emulated_scores(plan, image, None, HOSTS[1], "float32")
    stack = _native.as_stack(image)
    windows = _native.as_windows(stack, 20, None)
    expected = _native.score_windows(stack, 20, plan.program(), windows, host_lanes=257, reversed_lanes=True)
    torch.testing.assert_close(every_window, expected, rtol=0, atol=1e-5)
    assert torch.equal(emulated_scores(plan, image, mask, HOSTS[2], "float32"), every_window[:, mask].T)


@pytest.mark.parametrize("map_bytes", [1, 40_000, 100_000])
def test_scores_do_not_depend_on_batches_or_tiles(map_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, image, mask, _ = example("lenet")
    for chosen in (mask, None):
        host = _native.HostWarps(128)
        want = emulated_scores(plan, image, chosen, host, "tf32")
        monkeypatch.setattr(_native.tensor_core, "CUDA_MAP_BYTES", map_bytes)
        smaller = _native.HostWarps(128, tile_bytes=9 << 10)
        assert torch.equal(emulated_scores(plan, image, chosen, smaller, "tf32"), want)
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("name", "host", "reason"),
    [
        ("too wide", _native.HostWarps(32), "wider than 128"),
        ("lenet", _native.HostWarps(32, tile_bytes=1000), "feature maps are larger than shared memory"),
        (
            "wide",
            _native.HostWarps(32, fully_connected_bytes=9000),
            "hidden layers are larger than shared memory",
        ),
        ("wide", _native.HostWarps(256), "hidden layers are larger than shared memory"),
        ("lenet", _native.HostWarps(32, wide=False), "multiple of 64"),
    ],
)
def test_unsupported_programs_raise(name: str, host: _native.HostWarps, reason: str) -> None:
    model = lenet(hidden=(129,)) if name == "too wide" else MODELS[name]
    plan = read_plan(model, 20)
    assert isinstance(plan, Plan)
    with pytest.raises(ValueError, match=reason):
        emulated_scores(plan, torch.randn(24, 24), None, host, "float32")
