"""The stages: the jobs of each one, with their keys, and the workers that do them."""
