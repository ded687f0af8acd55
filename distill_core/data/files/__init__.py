"""The files of a dataset: below a local folder, or in a bucket; errors of file systems."""
