"""`score_windows` against the model run window by window."""

from __future__ import annotations

import copy
import math
import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from lenets import lenet, noise, one_by_one
from t3ssfast.errors import ConfigError, InputError, ModelError
from t3ssfast.kernels import _native
from t3ssfast.kernels.plan import Plan, has_dense_plan, read_plan
from t3ssfast.kernels.score_windows import score_windows

TOLERANCE = 1e-4
POOLINGS = {
    "max2": nn.MaxPool2d(2),
    "max3": nn.MaxPool2d(3),
    "avg2": nn.AvgPool2d(2),
    "max3s2": nn.MaxPool2d(3, stride=2),
    "none": nn.Identity(),
}


def run_native(
    plan: Plan, image: torch.Tensor, mask: torch.Tensor | None = None, **options: Any
) -> torch.Tensor:
    """Run the native kernel with the options of `_native.score_windows`."""
    stack = _native.as_stack(image)
    windows = _native.as_windows(stack, plan.size, mask)
    return _native.score_windows(stack, plan.size, plan.program(), windows, **options)


# ------------------------------------------------------------------------------------------- the same scores


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    stride=st.integers(1, 9),
    pools=st.tuples(
        st.sampled_from(["max2", "max3", "avg2", "max3s2", "none"]), st.sampled_from(["max2", "avg2", "none"])
    ),
    extra=st.tuples(st.integers(0, 60), st.integers(0, 60)),
    simd=st.sampled_from(_native.build_info()["simd_levels"]),
    min_windows=st.sampled_from([1, 4, 10]),
    share=st.sampled_from([0.1, 0.7, 1.0]),
)
def test_windows_at_a_stride_have_the_scores_of_these_windows_among_all(
    stride, pools, extra, simd, min_windows, share
) -> None:
    model = lenet(26, (5, 9), (3, 3), tuple(POOLINGS[p] for p in pools), (20,), 2)
    image = noise(2, 26 + extra[0], 26 + extra[1])
    plan = read_plan(model, 26)
    every = run_native(plan, image, simd=simd, winograd_min_windows=10)[:, :, ::stride, ::stride]
    stack = _native.as_stack(image)
    mask = torch.rand(every.shape[1:], generator=torch.Generator().manual_seed(1)) < share
    options = {"simd": simd, "winograd_min_windows": min_windows, "stride": stride}
    windows = _native.as_windows(stack, 26, mask, stride)
    scores = _native.score_windows(stack, 26, plan.program(), windows, **options)
    torch.testing.assert_close(scores, every[:, mask].T, atol=1e-5, rtol=1e-5)
    windows = _native.as_windows(stack, 26, None, stride)
    scores = _native.score_windows(stack, 26, plan.program(), windows, **options)
    torch.testing.assert_close(scores, every, atol=1e-5, rtol=1e-5)
    on_host = _native.score_windows(stack, 26, plan.program(), windows, host_lanes=32, stride=stride)
    torch.testing.assert_close(on_host, every, atol=1e-5, rtol=1e-5)


def test_feature_maps_between_windows_are_not_computed() -> None:
    program = read_plan(lenet(26, (5, 9), (3, 3)), 26).program()
    strides = [program.prepare(26, None, None, stride).window_stride for stride in (1, 2, 3, 4, 6, 8)]
    # Two poolings of 2: a stride of 6 leaves every third of every second window.
    assert strides == [1, 2, 1, 4, 2, 4]


@pytest.mark.parametrize("plan", ["dense", "windows"])
def test_stride_of_the_public_function(plan) -> None:
    model, image = lenet(), noise(2, 41, 38)
    every = score_windows(model, image, size=20, plan="dense")
    scores = score_windows(model, image, size=20, plan=plan, stride=3)
    assert scores.shape == (2, 2, 8, 7)
    torch.testing.assert_close(scores, every[:, :, ::3, ::3], atol=TOLERANCE, rtol=0)
    mask = noise(2, 8, 7, seed=3) > 0
    chosen = score_windows(model, image, mask=mask, size=20, plan=plan, stride=3)
    torch.testing.assert_close(chosen, scores[:, mask].T, atol=TOLERANCE, rtol=0)
    with pytest.raises(InputError, match="mask has shape"):
        score_windows(model, image, mask=noise(2, 22, 19) > 0, size=20, stride=3)
    with pytest.raises(ConfigError, match="stride is 0"):
        score_windows(model, image, size=20, stride=0)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    size=st.integers(20, 26),
    channels=st.tuples(st.integers(1, 17), st.integers(1, 19)),
    kernels=st.tuples(st.integers(1, 5), st.integers(1, 4)),
    pools=st.tuples(
        st.sampled_from(["max2", "max3", "avg2", "max3s2", "none"]), st.sampled_from(["max2", "none"])
    ),
    hidden=st.lists(st.integers(1, 50), max_size=2),
    classes=st.integers(1, 3),
    activation=st.sampled_from(
        [nn.ReLU(), nn.LeakyReLU(0.3), nn.Tanh(), nn.Sigmoid(), nn.GELU(), nn.GELU("tanh")]
    ),
    norm=st.booleans(),
    extra=st.tuples(st.integers(0, 9), st.integers(0, 20)),
    seed=st.integers(0, 99),
)
def test_plan_dense_gives_the_scores_of_the_model(
    size, channels, kernels, pools, hidden, classes, activation, norm, extra, seed
) -> None:
    model = lenet(
        size,
        channels,
        kernels,
        tuple(POOLINGS[p] for p in pools),
        tuple(hidden),
        classes,
        activation,
        norm,
        seed,
    )
    image = noise(2, size + extra[0], size + extra[1], seed=seed)
    scores = score_windows(model, image, size=size, plan="dense")
    torch.testing.assert_close(scores, one_by_one(model, image, size), atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("plan", ["dense", "windows", "auto"])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_shapes_and_array_types(plan: str, library: str) -> None:
    model = lenet()
    image = noise(3, 24, 31)
    mask = noise(3, 5, 12, seed=1) > 0.5
    expected = one_by_one(model, image, 20)
    given_image, given_mask = (image.numpy(), mask.numpy()) if library == "numpy" else (image, mask)
    everything = score_windows(model, given_image, size=20, plan=plan, batch_size=7)
    masked = score_windows(model, given_image, mask=given_mask, size=20, plan=plan, batch_size=7)
    assert isinstance(everything, np.ndarray if library == "numpy" else torch.Tensor)
    assert everything.shape == (2, 3, 5, 12)
    assert masked.shape == (int(mask.sum()), 2)
    np.testing.assert_allclose(np.asarray(everything), expected.numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(np.asarray(masked), expected[:, mask].T.numpy(), atol=TOLERANCE)
    assert score_windows(model, given_image[0], size=20, plan=plan).shape == (2, 5, 12)


def ring(height: int, width: int, radius: float, thickness: float) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    distance = torch.hypot(y - height / 2, x - width / 2)
    return (distance - radius).abs() <= thickness / 2


def masks() -> dict[str, torch.Tensor]:
    shape = (2, 90, 147)  # several tiles along both axes
    single, corners = torch.zeros(2, *shape, dtype=torch.bool)
    single[1, 63, 64] = True
    corners[:, ::89, ::146] = True
    return {
        "empty": torch.zeros(shape, dtype=torch.uint8),
        "full": torch.ones(shape, dtype=torch.uint8),
        "single": single,
        "corners": corners,
        "ring": ring(90, 147, 35, 3).expand(shape),
        "scattered": noise(*shape, seed=3) > 2.5,
        "last row": torch.arange(90)[:, None].eq(89).expand(shape),
    }


# Minimum number of requested windows per 3 x 3 block: Winograd for all of them, for none, or as the mask
# decides.
WINOGRAD_ALWAYS, WINOGRAD_NEVER, WINOGRAD_AUTO = 1, 10, 4


@pytest.mark.parametrize("name", list(masks()))
def test_scores_of_a_mask_equal_those_of_all_windows(name: str) -> None:
    mask = masks()[name]
    model = lenet(channels=(4, 16), hidden=(33, 9))
    plan = read_plan(model, 20)
    image = noise(2, 109, 166)
    for min_windows in (WINOGRAD_ALWAYS, WINOGRAD_NEVER):  # bit for bit
        everything = run_native(plan, image, winograd_min_windows=min_windows)
        masked = run_native(plan, image, mask, winograd_min_windows=min_windows)
        assert torch.equal(masked, everything[:, mask.bool()].T)
    everything = score_windows(model, image, size=20, plan="dense")
    masked = score_windows(model, image, mask=mask, size=20, plan="dense")
    torch.testing.assert_close(masked, everything[:, mask.bool()].T, atol=1e-6, rtol=1e-5)


def test_scores_depend_on_the_mask_in_their_own_patch_only() -> None:
    """Compare two masks that agree in every other patch of 48 x 48 windows."""
    plan = read_plan(lenet(channels=(4, 16), hidden=(200, 9)), 20)
    image = noise(1, 5 * 48 + 19, 4 * 48 + 19)
    mask = noise(1, 5 * 48, 4 * 48, seed=4) > -0.7
    patch = torch.arange(5 * 48)[:, None] // 48 + torch.arange(4 * 48) // 48
    other = torch.where(patch % 2 == 0, mask, noise(*mask.shape, seed=5) > 2)
    scores = []
    for requested in (mask, other):
        out = torch.zeros(2, *requested.shape)
        out[:, requested] = run_native(plan, image, requested, winograd_min_windows=WINOGRAD_AUTO).T
        scores.append(out[:, mask & (patch % 2 == 0)])
    assert torch.equal(*scores)
    direct = run_native(plan, image, mask, winograd_min_windows=WINOGRAD_NEVER)
    assert not torch.equal(
        run_native(plan, image, mask, winograd_min_windows=WINOGRAD_AUTO), direct
    )  # uses Winograd
    sparse = noise(1, 5 * 48, 4 * 48, seed=6) > 1.6
    assert torch.equal(
        run_native(plan, image, sparse, winograd_min_windows=WINOGRAD_AUTO),
        run_native(plan, image, sparse, winograd_min_windows=WINOGRAD_NEVER),
    )  # too few blocks to transform their patch


@pytest.mark.parametrize("min_windows", [WINOGRAD_ALWAYS, WINOGRAD_AUTO, WINOGRAD_NEVER])
def test_bits_do_not_depend_on_threads_or_tiles(min_windows: int) -> None:
    model = lenet(channels=(4, 16), hidden=(200, 9))
    plan = read_plan(model, 20)
    image = noise(1, 219, 180)
    mask = noise(1, 200, 161, seed=4) > -0.7
    for requested in (None, mask):
        one = run_native(plan, image, requested, threads=1, winograd_min_windows=min_windows)
        for threads in (2, 3, 8):  # more threads take smaller tiles
            assert torch.equal(
                one, run_native(plan, image, requested, threads=threads, winograd_min_windows=min_windows)
            )
        # A stack takes tiles of the largest size.
        masks = None if requested is None else requested.expand(24, -1, -1)
        stack = run_native(plan, image.expand(24, -1, -1), masks, threads=1, winograd_min_windows=min_windows)
        assert torch.equal(one, stack[:, -1:] if requested is None else stack[-len(one) :])
    # A crop at the edges of patches of 48 x 48 windows has the same scores in its complete patches.
    crop = image[:, 48:200, 48:180]
    crop_scores = run_native(plan, crop, threads=1, winograd_min_windows=min_windows)[:, :, :96, :96]
    assert torch.equal(
        run_native(plan, image, winograd_min_windows=min_windows)[:, :, 48:144, 48:144], crop_scores
    )


@settings(max_examples=30, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    pool=st.sampled_from([1, 2, 3]),
    channels=st.integers(1, 19),
    hidden=st.integers(1, 70),
    extra=st.tuples(st.integers(0, 40), st.integers(0, 60)),
    offset=st.sampled_from([0.0, 30.0]),
    seed=st.integers(0, 99),
)
def test_winograd_gives_the_scores_of_the_model_for_any_kernel(
    kernel, pool, channels, hidden, extra, offset, seed
) -> None:
    torch.manual_seed(seed)
    size = pool * max(kernel) + 2
    local = [(size - 2) // pool] * 2
    model = nn.Sequential(
        nn.Conv2d(1, channels, 3), nn.ReLU(), nn.MaxPool2d(pool) if pool > 1 else nn.Identity(),
        nn.Conv2d(channels, hidden, kernel), nn.Tanh() if kernel == tuple(local) else nn.ReLU(),
        nn.Flatten(), nn.Linear(hidden * (local[0] - kernel[0] + 1) * (local[1] - kernel[1] + 1), 2),
    ).eval()  # fmt: skip
    plan = read_plan(model, size)
    image = noise(1, size + extra[0], size + extra[1], seed=seed) + offset
    windows = image.double().unfold(-2, size, 1).unfold(-2, size, 1)
    mask = torch.rand(windows.shape[:3], generator=torch.Generator().manual_seed(seed)) < 0.3
    with torch.no_grad():
        expected = copy.deepcopy(model).double()(windows[mask][:, None]).float()
    scale = max(1.0, expected.abs().max().item() if len(expected) else 1.0)
    for min_windows in (WINOGRAD_ALWAYS, WINOGRAD_AUTO):
        scores = run_native(plan, image, mask, winograd_min_windows=min_windows)
        torch.testing.assert_close(scores, expected, atol=3e-5 * scale, rtol=0)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_winograd_is_about_as_accurate_as_direct_sums(offset: float) -> None:
    """Compare the published network with float64, on noise with and without an offset."""
    model = lenet(50, (6, 16), (5, 5), hidden=(120, 84))
    plan = read_plan(model, 50)
    image = noise(80, 90) + offset
    expected = one_by_one(copy.deepcopy(model).double(), image.double(), 50)
    errors = [
        (run_native(plan, image, winograd_min_windows=min_windows) - expected).abs().max().item()
        for min_windows in (WINOGRAD_ALWAYS, WINOGRAD_NEVER)
    ]
    assert errors[0] < 4 * errors[1]
    assert errors[0] < 2e-5 * expected.abs().max().item()


@pytest.mark.parametrize("simd", _native.build_info()["simd_levels"])
@pytest.mark.parametrize("min_windows", [WINOGRAD_ALWAYS, WINOGRAD_AUTO, WINOGRAD_NEVER])
def test_every_instruction_set_gives_the_same_scores(simd: str, min_windows: int) -> None:
    plan = read_plan(lenet(20, (5, 18), hidden=(199, 9), activation=nn.GELU()), 20)
    image, mask = noise(2, 60, 71), noise(2, 41, 52, seed=2) > -0.7
    expected = run_native(plan, image, mask, winograd_min_windows=WINOGRAD_NEVER)
    scores = run_native(plan, image, mask, winograd_min_windows=min_windows, simd=simd)
    torch.testing.assert_close(scores, expected, atol=1e-6, rtol=1e-5)
    assert torch.equal(
        scores, run_native(plan, image, mask, winograd_min_windows=min_windows, simd=simd, threads=3)
    )


def test_an_unavailable_instruction_set_is_refused() -> None:
    plan = read_plan(lenet(), 20)
    missing = [s for s in _native.SIMD if s not in _native.build_info()["simd_levels"]]
    for simd in missing:
        with pytest.raises(ValueError, match="lacks the instruction set"):
            run_native(plan, noise(25, 25), simd=simd)


def test_an_image_of_one_window() -> None:
    model = lenet()
    image = noise(20, 20)
    expected = one_by_one(model, image, 20)
    torch.testing.assert_close(score_windows(model, image, size=20), expected, atol=TOLERANCE, rtol=0)


def test_the_published_network() -> None:
    model = lenet(50, (6, 16), (5, 5), hidden=(120, 84))
    image = noise(60, 71)
    assert has_dense_plan(model, 50)
    expected = one_by_one(model, image, 50)
    torch.testing.assert_close(score_windows(model, image), expected, atol=1e-5, rtol=0)


def test_a_model_without_a_dense_plan_is_run_on_windows() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(800, 2)).eval()
    image = noise(25, 27)
    expected = one_by_one(model, image, 20)
    torch.testing.assert_close(score_windows(model, image, size=20), expected, atol=TOLERANCE, rtol=0)
    with pytest.raises(ModelError, match="because a convolution pads"):
        score_windows(model, image, size=20, plan="dense")


def test_inputs_stay_unchanged_and_no_gradient_is_recorded() -> None:
    image = noise(25, 27).requires_grad_()
    before = image.detach().clone()
    with torch.no_grad():
        for plan in ("dense", "windows"):
            assert not score_windows(lenet(), image, size=20, plan=plan).requires_grad
    assert torch.equal(image.detach(), before)


def test_scoring_releases_the_interpreter_lock() -> None:
    model = lenet(50, (6, 16), (5, 5), hidden=(120, 84))
    image = noise(300, 300)
    score_windows(model, image[:50, :50].contiguous())  # caches the plan
    steps, done = 0, threading.Event()

    def work() -> None:
        score_windows(model, image, plan="dense")
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.wait(0.001):
        steps += 1
    thread.join()
    assert steps >= 3


# ------------------------------------------------------------------------------------------ large images


def test_indices_beyond_two_to_the_31() -> None:
    """Use an image of 2.4e9 pixels whose pages were never written and take no memory."""
    height, width = 40_000, 60_000
    pixels = np.zeros((1, height, width), np.float32)
    pixels[0, -25:, -25:] = noise(25, 25).numpy()
    stack = _native.ImageStack(pixels, (height, width), torch.device("cpu"), True)
    shape = stack.window_shape(20)
    last = math.prod(shape)
    index = torch.tensor([5, 2**31 - 7, 2**31 + 9, last - 7 - 6 * shape[1], last - 3, last - 1])
    windows = _native.Windows(shape, index)
    out = torch.empty(len(index), 20, 20)
    _native.unfold(stack, 20, windows, zscore=False, out=out)
    expected = torch.zeros_like(out)
    corner = torch.from_numpy(pixels[0, -25:, -25:].copy())
    expected[3] = torch.nn.functional.pad(corner[:19, :19], (1, 0, 1, 0))
    expected[4], expected[5] = corner[5:, 3:23], corner[5:, 5:]
    assert torch.equal(out, expected)
    model = lenet()
    plan = read_plan(model, 20)
    for min_windows in (WINOGRAD_ALWAYS, WINOGRAD_NEVER):
        scores = _native.score_windows(stack, 20, plan.program(), windows, winograd_min_windows=min_windows)
        with torch.no_grad():
            torch.testing.assert_close(scores, model(expected[:, None]), atol=TOLERANCE, rtol=0)


def test_feature_maps_of_many_channels_use_smaller_tiles() -> None:
    """With 512 channels, the feature maps of the largest tile would take half a gigabyte."""
    model = lenet(20, (2, 512), (5, 1), (nn.MaxPool2d(2), nn.MaxPool2d(2)), (3,))
    image = noise(1, 320, 320)
    mask = torch.zeros(1, 301, 301, dtype=torch.bool)
    mask[0, [0, 150, 300], [7, 151, 300]] = True
    windows = image.unfold(-2, 20, 1).unfold(-2, 20, 1)[mask]
    with torch.no_grad():
        expected = model(windows[:, None])
    torch.testing.assert_close(
        score_windows(model, image, mask=mask, size=20, plan="dense"), expected, atol=TOLERANCE, rtol=0
    )


# -------------------------------------------------------------------------------------------- bad input


def test_options_are_checked() -> None:
    model, image = lenet(), noise(25, 27)
    for options in ({"plan": "fast"}, {"precision": "float16"}, {"batch_size": 0}, {"precision": "bfloat16"}):
        with pytest.raises(ConfigError):
            score_windows(model, image, size=20, **options)
    assert score_windows(model, image, size=20, precision="tf32").shape == (2, 6, 8)


def test_arrays_are_checked() -> None:
    model = lenet()
    with pytest.raises(InputError, match="smaller than one window"):
        score_windows(model, noise(19, 40), size=20)
    with pytest.raises(InputError, match="has shape"):
        score_windows(model, noise(2, 2, 30, 30), size=20)
    with pytest.raises(InputError, match="mask has shape"):
        score_windows(model, noise(30, 30), mask=np.ones((30, 30), bool), size=20)
    with pytest.raises(InputError, match="holds nan"):
        score_windows(model, torch.full((30, 30), float("nan")), size=20)


@pytest.mark.parametrize("plan", ["dense", "windows", "auto"])
def test_models_are_checked(plan: str) -> None:
    image = noise(60, 60)
    with pytest.raises(ModelError, match=r"20, 21, 22, 23"):
        score_windows(lenet(), image, size=50, plan=plan)
    with pytest.raises(ModelError, match="training mode"):
        score_windows(lenet().train(), image, size=20, plan=plan)
    with pytest.raises(ModelError, match="float64"):
        score_windows(lenet().double(), image, size=20, plan=plan)
    with pytest.raises(ModelError, match="on meta"):
        score_windows(lenet().to("meta"), image, size=20, plan=plan)


# --------------------------------------------------------------------- the CUDA schedule, run on the CPU


@pytest.mark.parametrize("lanes", [1, 32, 128, 257])
@pytest.mark.parametrize("reversed_lanes", [False, True])
def test_blocks_of_any_number_of_threads_match_the_cpu(lanes: int, reversed_lanes: bool) -> None:
    model = nn.Sequential(
        lenet(channels=(4, 9), hidden=(33, 9), activation=nn.GELU(), classes=3), nn.Tanh(), nn.LogSoftmax(1)
    ).eval()
    plan = read_plan(model, 20)
    image = noise(2, 60, 71)  # 41 x 52 windows: tiles cut off by both edges
    mask = None if lanes == 128 else noise(2, 41, 52, seed=2) > 1.3
    scores = run_native(plan, image, mask, host_lanes=lanes, reversed_lanes=reversed_lanes)
    torch.testing.assert_close(scores, run_native(plan, image, mask), atol=1e-5, rtol=1e-5)
