"""Squeeze: a teacher trained on real images, or imported from a file.

teacher: training, importing, and the files of a teacher
"""
