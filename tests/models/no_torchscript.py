"""Detection, training and saving in a process in which every use of torch.jit is an error.

It stands for a PyTorch without TorchScript, which has been deprecated.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

import torch

USES = (
    *("script", "trace", "trace_module", "load", "save", "freeze", "optimize_for_inference", "fork", "wait"),
    *("optimized_execution", "run_frozen_optimizations", "set_fusion_strategy", "enable_onednn_fusion"),
    *("script_method", "script_if_tracing", "CompilationUnit", "last_executed_optimized_graph"),
)
used: list[str] = []


def refuse_torchscript() -> None:
    """Replace the functions of torch.jit by ones that raise."""

    def refusal(name: str) -> Any:
        def refuse(*_: Any, **__: Any) -> NoReturn:
            used.append(name)
            raise RuntimeError(f"torch.jit.{name} is used")

        return refuse

    for name in USES:
        setattr(torch.jit, name, refusal(name))


def main(folder: Path) -> None:
    refuse_torchscript()
    import t3ssfast as t3
    from t3ssfast.models import LeNet, load_model

    simulation = t3.simulate(seed=3, shape=(24, 112, 112))
    tomogram, truth = simulation.tomogram, simulation.truth
    config = t3.DetectConfig(segmenter_engine="torch", score_threshold=0.1)
    detection = t3.detect(tomogram, config=config, progress=False)
    detection.save(folder / "found")
    assert detection.membrane is not None
    assert detection.membrane.any()
    assert not used, used
    # PyTorch's compiler takes seconds to import.
    assert "torch._dynamo" not in sys.modules

    out = folder / "classifier.safetensors"
    options: dict[str, Any] = {"steps": 2, "steps_per_epoch": 1, "batch": 8, "rounds": 1, "mined_slices": 1}
    t3.train_classifier([tomogram], [truth], [simulation.membrane], out=out, **options)
    t3.train_segmenter([tomogram], [simulation.membrane], out=folder / "unet.safetensors", **SMALL_UNET)
    classifier = load_model(out, model_kind="classifier")
    assert isinstance(classifier.module, LeNet)
    load_model(folder / "unet.safetensors", model_kind="segmenter").frozen(torch.zeros(1, 1, 32, 32))
    image = tomogram.data[12].astype("float32")
    assert t3.score_windows(classifier.module, image).shape == (2, 63, 63)
    # Whether TorchScript can be written beside the safetensors file is found out once, by trying.
    assert used == ["script"], used

    try:
        t3.train_classifier([tomogram], [truth], [simulation.membrane], out=folder / "a.pt", **options)
    except t3.errors.ModelError as error:
        print(error)
    assert used == ["script"], used
    print(*sorted(path.name for path in folder.iterdir()))


SMALL_UNET: dict[str, Any] = {
    "depth": 1,
    "slices": 1,
    "base": 2,
    "steps": 2,
    "steps_per_epoch": 1,
    "batch": 2,
    "patch_px": 32,
    "validation_patches": 2,
}

if __name__ == "__main__":
    main(Path(sys.argv[1]))
