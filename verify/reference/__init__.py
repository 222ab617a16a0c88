"""References: the same computation in another arithmetic, without torch."""
