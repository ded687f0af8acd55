"""Status of runs: shards done, rates, and who is at work."""
