"""t3ssfast detects type III secretion systems in cryo-electron tomograms.

``import t3ssfast as t3`` is fast: public names, PyTorch and the native kernels are loaded on first use.
The public names are listed in ``__init__.pyi``.
"""

from __future__ import annotations

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
