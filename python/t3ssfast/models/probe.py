"""Whether a model answers as one of its kind should, by asking it."""

from __future__ import annotations

import threading

import torch
from torch import Tensor, nn

from t3ssfast.errors import ModelError
from t3ssfast.models.axialnet import AZIMUTHS
from t3ssfast.models.lenet import DEFAULT_WINDOW_PX
from t3ssfast.models.metadata import ModelMetadata
from t3ssfast.models.torchscript import quiet_torchscript
from t3ssfast.runtime.memory import is_out_of_memory

__all__ = ["looks_like_probabilities", "probe"]

# A side that every U-Net of up to five poolings accepts.
PROBE_SIDE = 64
# The bundled models take milliseconds; one that takes this long for two windows would take a tomogram years.
PROBE_SECONDS = 60.0
# Between one window in a batch and the same alone there is rounding; a network that normalises over its batch
# differs by far more.
BATCH_TOLERANCE = 1e-2


def probe(module: nn.Module, metadata: ModelMetadata, name: str) -> Tensor:
    """The model's answer to a small deterministic input, checked."""
    segmenter, verifier = metadata.model_kind == "segmenter", metadata.model_kind == "verifier"
    side = PROBE_SIDE if segmenter else metadata.window_px or DEFAULT_WINDOW_PX
    sides = (AZIMUTHS, side, side // 2) if verifier else (metadata.slices, side, side)
    # Two of them, so that a model which squeezes its batch away is seen.
    batch = torch.randn(2, *sides, generator=torch.Generator().manual_seed(0))
    wanted = "(N, 1, H, W)" if segmenter else f"(M, {len(metadata.classes) or 'classes'})"
    what = {
        "segmenter": f"slices (N, {metadata.slices}, H, W)",
        "classifier": f"windows (M, 1, {side}, {side})",
    }
    asked = what.get(metadata.model_kind, f"half-planes (M, {AZIMUTHS}, {side}, {side // 2})")
    try:
        answer = _ask(module, batch, name)
    except ModelError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        lines = [line for line in str(error).strip().splitlines() if line.strip()] or ["no reason given"]
        raise ModelError(
            f"{name} is not a {metadata.model_kind}: it does not take {asked} "
            f"({lines[-1].strip()}); give a model "
            f"that answers them with {wanted}."
        ) from error
    shape = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
    if not segmenter:
        expected = len(metadata.classes)
        # A classifier's one answer may stand for two classes.
        allowed = {expected, 1} if expected == 2 else {expected}
        fits = (
            isinstance(answer, Tensor)
            and answer.ndim == 2
            and answer.shape[0] == 2
            and answer.shape[1] >= 1
            and (expected == 0 or answer.shape[1] in allowed)
        )
    else:
        fits = isinstance(answer, Tensor) and tuple(answer.shape) == (2, 1, side, side)
    if not fits or not answer.is_floating_point():
        raise ModelError(
            f"{name} is not a {metadata.model_kind}: to {asked} it answers {shape}; give a "
            "model that answers "
            f"{wanted} floating-point numbers."
        )
    if not torch.isfinite(answer).all():
        raise ModelError(f"{name} answers NaN or infinity to ordinary input; train or save it again.")
    _check_evaluation(module, batch, answer, name)
    return answer


def _ask(module: nn.Module, batch: Tensor, name: str) -> Tensor:
    """A module's answer, or ModelError if it takes too long (to stop it is not in PyTorch's power)."""
    outcome: list[Tensor] = []
    failure: list[Exception] = []

    def run() -> None:
        try:
            with torch.inference_mode(), quiet_torchscript():
                outcome.append(module(batch))
        except Exception as error:
            failure.append(error)

    worker = threading.Thread(target=run, name="t3ssfast-probe", daemon=True)
    worker.start()
    try:
        worker.join(PROBE_SECONDS)
    except KeyboardInterrupt:
        # A thread that comes back from native code while the interpreter ends would abort the process.
        worker.join(PROBE_SECONDS)
        raise
    if worker.is_alive():
        raise ModelError(
            f"{name} did not answer an input of shape {tuple(batch.shape)} within {PROBE_SECONDS:g} s; give "
            "a smaller model."
        )
    if failure:
        raise failure[0]
    return outcome[0]


def _check_evaluation(module: nn.Module, batch: Tensor, answer: Tensor, name: str) -> None:
    """Refuse a model that was saved in training mode in a way that cannot be switched off any more."""
    if not torch.equal(_ask(module, batch, name), answer):
        raise ModelError(
            f"{name} answers differently when asked again: dropout or something else in it is random; save "
            "it in evaluation mode (module.eval())."
        )
    try:
        alone = _ask(module, batch[:1], name)
    except ModelError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        # Traced for a batch of two and more: what it answers for one cannot be compared.
        return
    scale = float(answer.abs().max()) + 1e-6
    if alone.shape != answer[:1].shape or float((alone - answer[:1]).abs().max()) > BATCH_TOLERANCE * scale:
        raise ModelError(
            f"{name} answers differently to an input alone and in a batch: its batch normalisation is in "
            "training mode; save it in evaluation mode (module.eval())."
        )


def looks_like_probabilities(answer: Tensor) -> bool:
    """Whether a probe's answer lies in [0, 1] and, over several classes, sums to one."""
    inside = bool((answer >= 0).all() and (answer <= 1).all())
    if answer.ndim == 2 and answer.shape[1] > 1:
        return inside and bool(torch.allclose(answer.sum(dim=1), torch.ones(len(answer)), atol=1e-4))
    return inside
