"""What long computations need: progress, prefetching, memory, checkpoints and folder locks."""
