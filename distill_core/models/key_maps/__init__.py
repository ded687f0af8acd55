"""Names of the tensors of one network in several programs, as tables.

key_map:       the type of a table; convolutional, transformers: the tables.
lookup:        the tables that apply to a network, in either direction.
incompatible:  files of other programs whose tensors no renaming fits to a network.
"""
