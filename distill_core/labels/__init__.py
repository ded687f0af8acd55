"""Soft labels: a teacher's predictions on views of the images.

relabel: the labels of one image shard under a range of views
sources: labels of every image by view: stored, computed online, or none
reading: stored labels read from storage or memory, view by view
views: the draws of a view, and their rendering for teachers and students
predict: a teacher's predictions on one view of a shard
encoding, decoding, topk: features and logits as they are stored
"""
