"""What all training shares: steps, optimisers, checkpoints, losses and processes."""
