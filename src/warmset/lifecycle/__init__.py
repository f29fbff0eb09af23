"""What becomes of an instance that left: it is closed, and those who listen are told."""
