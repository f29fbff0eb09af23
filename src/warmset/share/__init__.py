"""What reaches beyond one process: snapshots that others open, and a budget for a whole host."""
