"""Reports: accuracy tables, figures, images, and the differences between versions."""
