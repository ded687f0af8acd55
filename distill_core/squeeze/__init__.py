"""Squeeze: a teacher trained on real images, or imported from a file.

teacher: training, or importing; checkpoints: the state of a training
importing: a teacher from a file of weights; result: the files of a teacher
outputs: the outputs of an imported teacher in the order of the dataset's classes
judging: an imported teacher on real images; import_check: the statistics that decide
"""
