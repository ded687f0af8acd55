"""Detection of a dataset's format, for `data.format=auto`.

survey:     the names at the top of a dataset, listed without any image.
candidates: the formats that such names can mean; pure.
resolve:    the one format, or an error that lists several; and a statement of what was found.
"""
