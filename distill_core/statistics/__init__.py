"""Statistics of the real images of each class under a teacher.

measure: the statistics of a class or of a block of classes, as far as terms need them
barycentre: a few points that represent the features of a class
"""
