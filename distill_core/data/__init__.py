"""Real images: ingestion, the index, and decoded pixels by row of the index.

ingest:      read, hash and decode every image of a dataset once; returns its index.
checks:      the classes and rows that ingestion accepts; label_checks: a sample of labels.
index:       the index of a dataset, stored and loaded.
split_rules: rules that divide a dataset without a test split.
class_words: readable names of the classes.
real_images: decoded pixels of one split.
folders:     the folder of a dataset, local or remote (remote_folder); local_files: what lies
             below a local one; reading: errors of file systems.
readers:     one module per format; detection: the format of a dataset; decoding: bytes to pixels.
"""
