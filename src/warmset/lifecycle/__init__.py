"""What happens to an instance besides its use: options, closing, listeners, sweeping, capacity."""
