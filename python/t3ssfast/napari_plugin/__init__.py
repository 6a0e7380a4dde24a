"""Plugin for napari: readers, sample data, and widgets to detect, curate, unroll and fine-tune.

Only the modules in `widgets` import napari and Qt; nothing in the rest of t3ssfast imports this package.
"""
