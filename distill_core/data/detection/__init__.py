"""Detection of a dataset's format, for `data.format=auto`, and of a dataset by its address alone.

survey:     the names at the top of a dataset, listed without any image.
candidates: the formats that such names can mean; pure.
resolve:    the one format, or an error that lists several; and a statement of what was found.
place:      the format and both splits of a dataset of which only the address is known.
sample:     a sample of its images: their sides, mean and standard deviation.
source:     the facts that a recommended config depends on.
recommend:  the recommended run over a dataset.
"""
