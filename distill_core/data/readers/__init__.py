"""Readers: one file per dataset format; a reader lists images and returns their bytes undecoded."""
