"""Making packs: real images are read, resized where a run sets a size, and written by class.

encode: one image as it is packed.
build:  one shard of the stage `pack`, and the packs of a whole dataset.
"""
