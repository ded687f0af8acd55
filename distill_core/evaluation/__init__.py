"""Evaluation: the accuracy of a network on real images, as counts that add up over blocks.

accuracy: counts, percentages and the history of a training; no torch
blocks: the test images that training and validation evaluate on; no torch
metrics: the counts of a network on some images
validate: the counts of a stored student on one block, and their file
"""
