"""Real images: ingestion, the index, and decoded pixels by row of the index.

ingest:      plan the parts of a dataset; read, hash and decode every image once (parts).
checks:      the classes and rows that ingestion accepts; labels: checks of labels, and names.
index:       the index of a dataset: its rows (index_table), its files (index_files), how it is
             merged from parts (index_merge), and contents it has several times (duplicates).
splits:      rules that divide a dataset without a test split.
real_images: decoded pixels of one split.
folders:     the folder of a dataset, local or remote; files: what lies in it.
readers:     one module per format; detection: the format of a dataset; decoding: bytes to pixels.
"""
