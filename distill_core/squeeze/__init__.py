"""Squeeze: training a teacher on real images, or importing one from a file."""
