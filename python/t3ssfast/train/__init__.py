"""Training of the models: from tomograms with membranes, picks or candidates to TorchScript files."""

from __future__ import annotations

from t3ssfast.train.classifier import train_classifier
from t3ssfast.train.options import AugmentOptions, ClassifierOptions, SegmenterOptions, VerifierOptions
from t3ssfast.train.segmenter import train_segmenter
from t3ssfast.train.verifier import train_verifier

__all__ = [
    "AugmentOptions",
    "ClassifierOptions",
    "SegmenterOptions",
    "VerifierOptions",
    "train_classifier",
    "train_segmenter",
    "train_verifier",
]
