"""The three kernels: `unfold`, `window_statistics` and `score_windows`."""
