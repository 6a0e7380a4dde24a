"""A tomogram as a model wants to see it: resampled, flattened, scaled, slab by slab.

Everything is done one slice of the model's grid at a time, from the raw slices that it needs, so that a
slab's values do not depend on how the volume was cut into slabs, and no float copy of the whole exists.
"""

from __future__ import annotations

from t3ssfast.detection.normalise.prepared import PreparedTomogram
from t3ssfast.detection.normalise.slices import slices_about

__all__ = ["PreparedTomogram", "slices_about"]
