"""Label spaces: the class lists that datasets and teachers share, by name.

facts:   `SPACES`: name, number of classes, hash and source of each list.
lists:   the classes of a space, in its order, and their words.
compare: whether names are the classes of a space; the order of one list in another.
words:   readable names of classes, from a space or from a file beside a dataset.

A dataset numbers its classes itself (see `distill_core.data.index`). A space states which classes
they are, so that a teacher with other outputs can be converted by name.
"""
