"""Decoding of image files to uint8 arrays, in this process or in several others.

image:     one image.
rows:      several rows of the index; also the main loop of a decoding process.
processes: a pool of decoding processes.
"""
