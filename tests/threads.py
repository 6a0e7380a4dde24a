"""PyTorch's number of threads in tests, which the native kernels use as well."""

from __future__ import annotations

from t3ssfast.runtime.threads import torch_threads as on_threads

__all__ = ["on_threads"]
