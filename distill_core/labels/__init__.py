"""Soft labels: views, the teacher's predictions on them, their encoding, and reading them back."""
