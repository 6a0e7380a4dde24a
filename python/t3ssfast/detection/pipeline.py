"""The main job: a tomogram in, T3SS candidates out, stage by stage and slab by slab."""

from __future__ import annotations

import torch

from t3ssfast.detection.config import DetectConfig
from t3ssfast.detection.inputs import Model
from t3ssfast.detection.job import Job, using_threads
from t3ssfast.detection.result import Detection
from t3ssfast.detection.run_to_folder import run_to_folder
from t3ssfast.runtime.progress import Stages
from t3ssfast.tomogram import Array, StrPath, TomogramSource

__all__ = ["Detection", "detect", "run_to_folder"]


def detect(
    tomogram: TomogramSource,
    *,
    segmenter: Model = None,
    classifier: Model = None,
    verifier: Model = None,
    membrane: StrPath | Array | None = None,
    voxel_size_angstrom: float | None = None,
    device: str | torch.device = "auto",
    config: DetectConfig | None = None,
    progress: bool = True,
    checkpoint: StrPath | None = None,
) -> Detection:
    """Find T3SS in a tomogram.

    Membranes are segmented slice by slice, the windows near them are judged at stride 1, and the peaks of
    their scores become candidates with a pose. Every voxel is judged: slices are padded by reflection. The
    result does not depend on how the volume is cut into slabs; where memory runs out, thinner ones are tried.

    Parameters
    ----------
    tomogram
        Path of an MRC file or OME-Zarr folder, a `Tomogram`, or a (z, y, x) array.
    segmenter, classifier
        TorchScript files, modules or loaded models; None takes the bundled ones.
    verifier
        Looks at each candidate again, as a whole. None takes the bundled one where the classifier is the
        bundled one too, and none otherwise: it has learned from what that one takes for T3SS.
    membrane
        (z, y, x) mask of the tomogram's shape, or the path of one: no segmenter is then needed.
    voxel_size_angstrom
        Instead of the header's; an array needs it.
    device
        "auto", "cpu", "cuda", "cuda:1" ...
    config
        Everything else; `DetectConfig` holds the defaults.
    progress
        Show bars, if standard error is a terminal.
    checkpoint
        Folder in which each finished slab is kept (in a folder of its own, made where missing), so that a
        later call with the same tomogram, models and configuration goes on where this one was stopped.
        `Detection.save` removes what was kept. Models must then be files. None keeps nothing.

    Returns
    -------
    Detection

    Raises
    ------
    ReadError, VoxelSizeError, InputError
        The tomogram or the mask cannot be read or used.
    ModelError, DeviceError
        A model is not what it should be, or the device is not there.
    OutOfMemoryError
        Memory ran out, however small the pieces of the work were made.
    OutputError
        A finished slab cannot be written to the checkpoint.
    """
    config = DetectConfig() if config is None else config
    with using_threads(config.threads), Stages(progress) as stages:
        job = Job.open(
            tomogram,
            segmenter=segmenter,
            classifier=classifier,
            verifier=verifier,
            membrane=membrane,
            voxel_size_angstrom=voxel_size_angstrom,
            device=device,
            config=config,
            stages=stages,
        )
        identity = job.identify(stages)
        return job.run(identity, job.checkpoint(checkpoint, identity), stages)
