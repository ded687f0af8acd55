"""Post-train: training a student on the distilled images and their labels."""
