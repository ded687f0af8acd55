"""Readers of dataset formats: one module per format, listed in `formats.READERS`.

record holds the interface `Reader` and the value `Record`; formats opens a reader by name. Shared
by several formats: names, passed_over, files, split_classes, labels, label_lists and parts; by
those in tar files: split_files, tar_members and archive_images.
"""
