"""The bundled models and the checksums that they must have."""

from __future__ import annotations

import hashlib
from importlib import resources

from t3ssfast.errors import ModelError

__all__ = ["BUNDLED_SHA256", "read_bundled"]

# In the code, so that whoever can change a file of weights cannot change its checksum with it.
BUNDLED_SHA256 = {
    "segmenter": "f38de3c2b0881c7e973270ceced32e4a2ad017ae0ba8a872b82a31d8486d4938",
    "classifier": "cec5235317bea31c07fbb34d8f6d07f2667b71ddfe8d09a13f16210a06222735",
    "verifier": "ee0fe6d85ce48b5cae5f55a157d9b89e9ff6e685a1781b7845e5dd8fd06c1918",
}


def read_bundled(model_kind: str) -> tuple[bytes, str]:
    """Return content and checksum of a bundled model; `ModelError` if it is missing or damaged."""
    try:
        content = (resources.files("t3ssfast") / "weights" / f"{model_kind}.safetensors").read_bytes()
    except OSError as error:
        raise ModelError(
            f"The bundled {model_kind} is not installed ({error}); reinstall t3ssfast or give a model file."
        ) from error
    actual, expected = hashlib.sha256(content).hexdigest(), BUNDLED_SHA256[model_kind]
    if actual != expected:
        raise ModelError(
            f"The bundled {model_kind} is damaged: its SHA-256 is {actual}, not {expected}; install t3ssfast "
            "again."
        )
    return content, actual
