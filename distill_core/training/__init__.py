"""Parts shared by the training of teachers and of students.

supervised:  labelled real images, and a network in training; streaming: images that do not fit into
             memory.
epochs:      training on such images; random_streams: random states of dropout.
losses:      of students; optim: optimisers, learning rates and weight averages.
checkpoint:  the state of a training as bytes; intervals: how often it is saved.
distributed: the processes of one training.
"""
