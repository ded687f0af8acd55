"""Evaluation: accuracy of a network on blocks of real images, as counts that add up."""
