"""Shipped presets, one YAML file per paper and dataset."""
