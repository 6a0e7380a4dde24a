"""Whether a model answers as one of its kind should, by asking it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from t3ssfast.errors import ModelError
from t3ssfast.models.lenet import DEFAULT_WINDOW_PX
from t3ssfast.models.metadata import ModelMetadata
from t3ssfast.models.torchscript import quiet_torchscript

__all__ = ["looks_like_probabilities", "probe"]

# A side that every U-Net of up to five poolings accepts.
PROBE_SIDE = 64


def probe(module: nn.Module, metadata: ModelMetadata, name: str) -> Tensor:
    """The model's answer to a small deterministic input, checked."""
    classifier = metadata.kind == "classifier"
    side = (metadata.window_px or DEFAULT_WINDOW_PX) if classifier else PROBE_SIDE
    # Two of them, so that a model which squeezes its batch away is seen.
    batch = torch.randn(2, 1, side, side, generator=torch.Generator().manual_seed(0))
    wanted = f"(M, {len(metadata.classes) or 'classes'})" if classifier else "(N, 1, H, W)"
    asked = f"windows (M, 1, {side}, {side})" if classifier else "slices (N, 1, H, W)"
    try:
        with torch.inference_mode(), quiet_torchscript():
            answer: Tensor = module(batch)
    except Exception as error:
        lines = [line for line in str(error).strip().splitlines() if line.strip()] or ["no reason given"]
        raise ModelError(
            f"{name} is not a {metadata.kind}: it does not take {asked} ({lines[-1].strip()}); give a model "
            f"that answers them with {wanted}."
        ) from error
    shape = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
    if classifier:
        expected = len(metadata.classes)
        # One answer may stand for two classes.
        allowed = {expected, 1} if expected == 2 else {expected}
        fits = (
            isinstance(answer, Tensor)
            and answer.ndim == 2
            and answer.shape[0] == 2
            and answer.shape[1] >= 1
            and (expected == 0 or answer.shape[1] in allowed)
        )
    else:
        fits = isinstance(answer, Tensor) and tuple(answer.shape) == tuple(batch.shape)
    if not fits or not answer.is_floating_point():
        raise ModelError(
            f"{name} is not a {metadata.kind}: to {asked} it answers {shape}; give a model that answers "
            f"{wanted} floating-point numbers."
        )
    if not torch.isfinite(answer).all():
        raise ModelError(f"{name} answers NaN or infinity to ordinary input; train or save it again.")
    return answer


def looks_like_probabilities(answer: Tensor) -> bool:
    """Whether a probe's answer lies in [0, 1] and, over several classes, sums to one."""
    inside = bool((answer >= 0).all() and (answer <= 1).all())
    if answer.ndim == 2 and answer.shape[1] > 1:
        return inside and bool(torch.allclose(answer.sum(dim=1), torch.ones(len(answer)), atol=1e-4))
    return inside
