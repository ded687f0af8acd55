"""Division of a dataset without a test split.

rules:        which images of a class are test images.
divide:       the rows of whole classes, divided.
divide_index: a whole dataset, divided block of classes by block of classes.
"""
