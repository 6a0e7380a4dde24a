"""Training of the segmenter, the classifier and the verifier on annotated tomograms."""

from __future__ import annotations

from t3ssfast.training.classifier import train_classifier
from t3ssfast.training.options import AugmentOptions, ClassifierOptions, SegmenterOptions, VerifierOptions
from t3ssfast.training.segmenter import train_segmenter
from t3ssfast.training.verifier import train_verifier

__all__ = [
    "AugmentOptions",
    "ClassifierOptions",
    "SegmenterOptions",
    "VerifierOptions",
    "train_classifier",
    "train_segmenter",
    "train_verifier",
]
