"""Figures of matplotlib, drawn by Agg whatever backend the environment names; their errors are warnings."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from t3ssfast.errors import PictureWarning

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["new_figure", "pictures_of"]

BACKEND = "MPLBACKEND"


def new_figure(width: float, height: float, dpi: int) -> Figure:
    """Create a figure in inches without pyplot, which needs no display and changes no global state."""
    given = os.environ.get(BACKEND)
    # matplotlib refuses to be imported where a notebook's backend is named outside of the notebook.
    override = given is not None and "matplotlib" not in sys.modules
    try:
        if override:
            os.environ[BACKEND] = "agg"
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    finally:
        if override and given is not None:
            os.environ[BACKEND] = given
    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@contextmanager
def pictures_of(result: str) -> Iterator[None]:
    """Turn any error of the block, which draws pictures of a saved result, into a `PictureWarning`."""
    try:
        yield
    except Exception as error:
        reason = (" ".join(str(error).split()) or type(error).__name__).rstrip(".")
        message = f"{result}: the pictures could not be drawn ({reason}); the other results are complete."
        warnings.warn(message, PictureWarning, stacklevel=3)
