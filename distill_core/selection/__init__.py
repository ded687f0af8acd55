"""Real images as starts and baselines: random, judged, coresets and mosaics of scored crops."""
