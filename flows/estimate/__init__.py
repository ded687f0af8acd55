"""Estimates before a run.

workload:     number of shards, images and image-iterations, from the config
stored_bytes: bytes of image and label shards
memory:       of one process of a stage; footprints: sizes of networks
cost:         GPU-hours and money at a measured rate
"""
