"""Connected components, compared with SciPy."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from t3ssfast.detection.connected_components import label_components


@settings(deadline=None, max_examples=60)
@example((1, 1, 17), 0.25, 1)  # cc3d underestimates the number of labels here
@given(st.tuples(*[st.integers(1, 18)] * 3), st.floats(0, 1), st.integers(0, 999))
def test_components_equal_those_of_scipy(shape: tuple[int, int, int], share: float, seed: int) -> None:
    mask = (np.random.default_rng(seed).random(shape) < share).astype(np.uint8)
    labels, count = label_components(mask)
    expected, number = ndimage.label(mask, np.ones((3, 3, 3)))
    assert count == number
    assert labels.shape == shape
    assert labels.flags.c_contiguous
    # The same components, in any order.
    pairs = np.unique(np.stack([labels.ravel(), expected.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(expected))
    np.testing.assert_array_equal(labels == 0, mask == 0)
