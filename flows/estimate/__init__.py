"""Estimates before a run.

workload:     number of shards, images and image-iterations, from the config
stored_bytes: bytes of image and label shards
memory:       of one process of each stage, from its parts (making, reading, training)
networks:     sizes of networks, from the table in footprints; real_data: sizes of the dataset
cost:         GPU-hours and money at a measured rate
"""
