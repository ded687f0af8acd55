"""Transforms of pixels: each one samples a small draw and applies it deterministically."""
