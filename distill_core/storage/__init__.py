"""Artifacts in object storage: stores, markers, manifests and file formats."""
