"""Decoding of image files to uint8 arrays, in this process or in several others.

image:       one image, as a square; random_crop: a random crop of it.
crops:       the draws of such crops.
orientation: the turn that its metadata state.
metadata:    their removal, where Pillow fails on them.
rows:        several rows of the index; also the main loop of a decoding process.
processes:   a pool of decoding processes.
"""
