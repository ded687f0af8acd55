"""Recover: making images from frozen teachers."""
