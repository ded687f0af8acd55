"""Post-train: a student trained on the distilled images and their labels.

train: one student on image shards, or on arrays with a label source
student: the task of a student, and its state in training
epochs: the views and labels of each epoch, and their rendering
"""
