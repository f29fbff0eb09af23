"""Memory management: sizes, budgets, eviction policies, recycling, warm-up, release reports."""
