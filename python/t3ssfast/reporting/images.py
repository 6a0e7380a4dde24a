"""Grey images as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

__all__ = ["CANDIDATES_PER_SPRITE", "data_uri", "sprites"]

# Views of this many candidates share one image, a row each, which opens faster than an image for each.
CANDIDATES_PER_SPRITE = 100
QUALITY = 62


def data_uri(image: npt.NDArray[np.uint8], quality: int = QUALITY) -> str:
    """Compress a (y, x) grey image; WebP, or JPEG where Pillow is built without it."""
    from PIL import Image, features

    name, options = ("WEBP", {"method": 4}) if features.check("webp") else ("JPEG", {"optimize": True})
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, name, quality=quality, **options)
    return f"data:image/{name.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def sprites(views: Iterable[npt.NDArray[np.uint8]]) -> list[str]:
    """Compress the (k, y, x) views of candidates: views side by side, CANDIDATES_PER_SPRITE rows an image."""
    uris: list[str] = []
    rows: list[npt.NDArray[np.uint8]] = []
    for view in views:
        rows.append(np.concatenate(list(view), axis=1))
        if len(rows) == CANDIDATES_PER_SPRITE:
            uris.append(data_uri(np.concatenate(rows)))
            rows = []
    if rows:
        uris.append(data_uri(np.concatenate(rows)))
    return uris
