"""Statistics of real images of each class under a teacher."""
