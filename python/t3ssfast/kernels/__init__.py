"""The three kernels of the package: `unfold`, `window_statistics` and `score_windows`."""
