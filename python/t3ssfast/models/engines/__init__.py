"""Inference engines for the segmenter: PyTorch, OpenVINO, CUDA graphs."""
