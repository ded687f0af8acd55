"""What each command does. Everything heavy is imported inside the functions."""
