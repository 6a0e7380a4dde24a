"""Model files of others: read into a graph of PyTorch's operators, never executed as they are.

`archive` opens the zip file, `pickles` and `code` read its parts, `evaluate` follows the code for one input
shape, `graph` adds operators on tensors, `operators` checks each and computes shapes, and `module` rebuilds a
network from the graph.
"""

from __future__ import annotations

from t3ssfast.models.foreign.archive import open_zip
from t3ssfast.models.foreign.module import Archive, TranslatedModel
from t3ssfast.models.foreign.refusal import Refusal
from t3ssfast.models.foreign.values import ShapeError

__all__ = ["Archive", "Refusal", "ShapeError", "TranslatedModel", "open_zip"]
