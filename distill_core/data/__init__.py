"""Real images: what the input is (the index) and reading it."""
