"""What the registry has its core count besides look-ups, builds and removals."""

WAITS, FAILED_BUILDS, CLOSED, CLOSE_FAILURES, LEFT_OPEN, LISTENER_FAILURES = range(6)
