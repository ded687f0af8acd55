"""Parts shared by the training of teachers and of students.

supervised:  training on labelled real images; streaming: images that do not fit into memory.
losses:      of students; optim: optimisers, learning rates and weight averages.
checkpoint:  the state of a training as bytes.
distributed: the processes of one training.
"""
