"""Training of the two models: from tomograms with membranes or picks to TorchScript files with metadata."""

from __future__ import annotations

from t3ssfast.train.classifier import train_classifier
from t3ssfast.train.options import AugmentOptions, ClassifierOptions, SegmenterOptions
from t3ssfast.train.segmenter import train_segmenter

__all__ = [
    "AugmentOptions",
    "ClassifierOptions",
    "SegmenterOptions",
    "train_classifier",
    "train_segmenter",
]
