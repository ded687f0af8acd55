"""The parts that a dataset is read in; each becomes a shard of ingestion.

read:    the images of a part, read, hashed and decoded.
counts:  the rows of each class, added up over parts.
summary: what the driver needs to know of a part without its rows.
known:   what the version before knows of unchanged images.
rows:    the rows of a split, from the shards of its parts.
"""
