"""Pixels with a place on Earth: rasters read and written, labels, vectors. No torch."""
