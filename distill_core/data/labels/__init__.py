"""Labels and classes beside the images: checks of a sample of labels, and readable names."""
