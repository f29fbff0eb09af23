"""Memory that comes back: sizes, budgets, who leaves and when, recycling, proof of release."""
