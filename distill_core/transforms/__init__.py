"""Transforms of pixels: each one samples a small draw and applies it deterministically.

views:         crop, flip and roll of float images; crops: of stored uint8 pixels.
mixing:        CutMix, Mixup and Cutout; patch_shuffle: shuffled patches.
rand_augment:  RandAugment, made of pixel_operations; train_augment: of real training images.
pixel_space:   normalisation; curricula: crop area and learning rate by step.
"""
