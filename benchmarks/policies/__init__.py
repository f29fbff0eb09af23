"""Who should leave: policies replayed over traces, ours beside those of others."""
