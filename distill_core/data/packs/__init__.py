"""Packs: the real images of a dataset in the store, in large files in the order of their classes.

A pack holds encoded images one after the other. A shard of the stage `pack` has the images of a
block of consecutive classes of one split: one pack or several, and a table of addresses with one
row per readable image in the order of the index. So a stage that reads one class reads one range of
bytes, and one that reads all images in any order reads large files only.

blocks:    the blocks of classes, and their keys.
addresses: the tables of addresses, and the rows that stand in for those of an index.
reading:   encoded images by these rows.
cache:     packs on a local disk; cache_settings: where, and how many bytes.
"""
