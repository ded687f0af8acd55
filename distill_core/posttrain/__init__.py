"""Post-train: a student trained on the distilled images and their labels.

images: the images of a set in one array, which the processes of a machine share
placing: whether the pixels fit the device, or stay on the host
train: one student on image shards, or on arrays with a label source
student: the task of a student, and its state in training
epochs: the views and labels of each epoch, and their rendering
"""
