"""Simulated tomograms of minicells with T3SS, and the truth about them."""
