"""Predictions of a running registry and of its forecasts, compared with replays; see `__main__`."""
