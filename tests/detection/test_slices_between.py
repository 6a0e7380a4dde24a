"""Every second slice first: which windows between are scored, whatever the slabs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import t3ssfast as t3
from t3ssfast.detection.normalise import PreparedTomogram
from t3ssfast.detection.preselect import PeakLimit
from t3ssfast.detection.search_region import SearchRegion
from t3ssfast.detection.slices_between import EverySlice, SlicesBetween
from t3ssfast.detection.smooth_scores import Scores
from toy import VOXEL

SHAPE = (41, 24, 20)
PEAKS = PeakLimit(0.6, 3.0)
Mask = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]


def example() -> tuple[PreparedTomogram, SearchRegion]:
    """A tomogram with columns of high values, and a search region that leaves out a third of it."""
    rng = np.random.default_rng(0)
    volume = ndimage.gaussian_filter(rng.normal(size=SHAPE), (2, 1, 1)) + 0.3 * rng.normal(size=SHAPE)
    membrane = np.zeros(SHAPE, np.uint8)
    membrane[:, 8:14] = 1
    tomogram = t3.Tomogram(volume.astype(np.float32), VOXEL, "columns")
    grid = PreparedTomogram.prepare(tomogram, voxel_size_angstrom=VOXEL)
    return grid, SearchRegion(membrane, VOXEL, 5.0, enclosed=False)


def probability(values: Values) -> Values:
    return np.asarray(1 / (1 + np.exp(3 - 3 * values)), np.float32)


def keep(slab: Values, region: Mask, z0: int) -> Mask:
    """Like a preselection, leave out some of the region."""
    kept = region.copy()
    kept[:, :, 15:] = 0
    return kept


def answer(order: SlicesBetween, slab: Values | None, region: Mask, z0: int) -> tuple[Scores, int]:
    """Score windows by the value at their centre; return the scores of a slab, and the number of windows."""
    windows = 0
    for request in order.requests(slab, region, z0):
        index = np.flatnonzero(request.windows)
        windows += len(index)
        # In two parts, as where there are many.
        for part in np.array_split(index, 2):
            request.scores.append((part, probability(request.slices.reshape(-1)[part])))
    (scores,) = order.slab_scores(z0, z0 + len(region))
    return scores, windows


def in_slabs(cuts: list[int], known: int = 0) -> tuple[Values, int]:
    """Score slabs between cuts; the first ones are `known` from an earlier run.

    Returns the scores as a volume, NaN where there is none, and how many windows were scored.
    """
    grid, search = example()
    order, earlier = (SlicesBetween(grid, search, keep, PEAKS) for _ in range(2))
    plane, windows = SHAPE[1] * SHAPE[2], 0
    volume = np.full(SHAPE, np.nan, np.float32)
    for number, (z0, z1) in enumerate(pairwise([0, *cuts, SHAPE[0]])):
        region = search.slab(z0, z1)
        if number < known:
            (index, value), _ = answer(earlier, grid.slab(z0, z1), region, z0)
            order.add([(index, value)], z0, z1)
        else:
            (index, value), asked = answer(order, grid.slab(z0, z1), region, z0)
            windows += asked
        volume.reshape(-1)[index + z0 * plane] = value
    return volume, windows


def test_windows_between_are_scored_where_the_average_may_become_a_peak() -> None:
    grid, search = example()
    scores, windows = in_slabs([])
    every = probability(grid.slab(0, SHAPE[0]))
    kept = keep(every, search.slab(0, SHAPE[0]), 0) != 0
    expected = kept.copy()
    sigma = PEAKS.smoothing_nm * 10 / VOXEL
    reach = int(np.ceil(3 * sigma))
    for z in range(1, SHAPE[0], 2):
        even = [n for n in range(max(0, z - reach), min(z + reach, SHAPE[0] - 1) + 1) if n % 2 == 0]
        weight = np.exp(-0.5 * ((np.array(even) - z) / sigma) ** 2)
        average = np.tensordot(weight / weight.sum(), np.where(kept, every, 0)[even], axes=1)
        expected[z] &= ndimage.binary_dilation(average >= PEAKS.threshold / 2, np.ones((3, 3)))
    assert 0.1 < expected[1::2].sum() / kept[1::2].sum() < 0.9
    np.testing.assert_array_equal(np.isfinite(scores), expected)
    np.testing.assert_array_equal(scores[expected], every[expected])
    # No window is scored twice.
    assert windows == expected.sum()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, SHAPE[0] - 1), unique=True, max_size=12), st.data())
def test_scores_do_not_depend_on_slabs_or_on_what_is_known(cuts: list[int], data: st.DataObject) -> None:
    whole, windows = in_slabs([])
    known = data.draw(st.integers(0, len(cuts)))
    parts, scored = in_slabs(sorted(cuts), known)
    np.testing.assert_array_equal(parts, whole)
    assert scored <= windows


def test_slices_without_a_search_region_have_no_scores() -> None:
    grid, search = example()
    order = SlicesBetween(grid, search, keep, PEAKS)
    (index, _), windows = answer(order, None, np.zeros((20, *SHAPE[1:]), np.uint8), 0)
    assert len(index) == windows == 0
    # The slices that follow find nothing in them.
    (index, _), windows = answer(order, grid.slab(20, 41), search.slab(20, 41), 20)
    assert len(index) == windows > 0


def test_every_slice_is_asked_for_at_once() -> None:
    grid, search = example()
    order, slab, region = EverySlice(keep), grid.slab(3, 9), search.slab(3, 9)
    (request,) = order.requests(slab, region, 3)
    np.testing.assert_array_equal(request.windows, keep(slab, region, 3))
    for scores in order.requests(slab, region, 3):
        scores.scores.append((np.arange(2), np.ones(2, np.float32)))
    assert len(order.slab_scores(3, 9)) == 1
    assert not list(order.requests(None, region, 9))
    assert order.slab_scores(9, 15) == []


@pytest.mark.parametrize(("smoothing_nm", "suits"), [(5.0, True), (1.9, True), (1.6, False), (0.0, False)])
def test_a_narrow_smoothing_needs_every_slice(smoothing_nm: float, suits: bool) -> None:
    grid, _ = example()
    assert pytest.approx(13.6) == VOXEL
    assert SlicesBetween.suits(grid, PeakLimit(0.5, smoothing_nm)) == suits
