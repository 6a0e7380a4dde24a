"""Tomograms from and to files: MRC (plain, .gz, .bz2) and OME-Zarr."""
