"""MRC and OME-Zarr volumes."""
