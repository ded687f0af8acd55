"""Running the stages of a run, finalising them, and what drivers report meanwhile."""
