"""Many tomograms: one task each, worked on by isolated processes, Slurm, dask or any executor.

Nothing is imported here, so that a worker process soon takes notice of its parent.
"""
