"""Real images as starts and baselines, chosen by a draw, a teacher or a student.

class_images: the real images by class, and the input that a network takes of them
starts: the start of every image of a class shard, for each `recover.init`
select: the order of a class by what a teacher gets right and a student wrong
coreset: herding and k-center
distinct: how many different images a set of real images has
mosaic: mosaics of scored crops, and images cut into tiles
"""
