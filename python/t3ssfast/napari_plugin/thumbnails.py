"""Pictures of candidates, turned to their axes, cut when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from t3ssfast.candidates import Candidates
from t3ssfast.errors import T3Error
from t3ssfast.napari_plugin.layers import VERDICT_COLOURS
from t3ssfast.napari_plugin.sources import Source
from t3ssfast.reporting.views import VIEW_PIXELS, views_of_candidates

__all__ = ["SECTION", "ThumbnailCache", "framed"]

# Number of the view that shows most of a T3SS in one picture: the section along the axis.
SECTION = 0
FRAME_PIXELS = 3
# Grey of a picture without a tomogram.
MISSING = 64
# A candidate takes 12 kB.
MAX_CACHED = 4000

Views = npt.NDArray[np.uint8]


class ThumbnailCache:
    """Views of candidates, each cut once.

    Parameters
    ----------
    sources
        One entry for each tomogram.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._views: dict[tuple[int, bytes], Views] = {}
        self.problems: dict[int, str] = {}  # why a tomogram cannot be shown, by its number

    def cut(self, tomogram: int, candidates: Candidates, row: int) -> Views:
        """Return the (4, VIEW_PIXELS, VIEW_PIXELS) views of a candidate; plain grey without a tomogram.

        Views are those of the report: two sections along the axis with the needle up, one across it, and the
        mean of the sections around it.
        """
        one = candidates[[row]]
        key = (tomogram, one.centre_zyx.tobytes() + one.normal_zyx.tobytes())
        if key not in self._views:
            if len(self._views) >= MAX_CACHED:
                self._views.clear()
            self._views[key] = self._cut(tomogram, one)
        return self._views[key]

    def _cut(self, tomogram: int, one: Candidates) -> Views:
        source = self._sources[tomogram]
        try:
            (views,) = views_of_candidates(source.tomogram, one, source.contrast_sign)
        except (T3Error, OSError) as error:
            self.problems[tomogram] = str(error)
            return np.full((4, VIEW_PIXELS, VIEW_PIXELS), MISSING, np.uint8)
        return views


def framed(view: Views, label: str) -> npt.NDArray[np.uint8]:
    """Return a (y, x) view as (y, x, 3) colours, with a frame in the colour of the verdict."""
    picture = np.repeat(view[..., None], 3, axis=2)
    if label:
        colour = [int(VERDICT_COLOURS[label][k : k + 2], 16) for k in (1, 3, 5)]
        inner = picture[FRAME_PIXELS:-FRAME_PIXELS, FRAME_PIXELS:-FRAME_PIXELS].copy()
        picture[:] = np.array(colour, np.uint8)
        picture[FRAME_PIXELS:-FRAME_PIXELS, FRAME_PIXELS:-FRAME_PIXELS] = inner
    return picture
