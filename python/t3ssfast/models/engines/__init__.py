"""What can run a segmenter: PyTorch, OpenVINO, CUDA graphs."""
