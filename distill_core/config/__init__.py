"""Configuration: one frozen tree that says everything which decides a result."""
