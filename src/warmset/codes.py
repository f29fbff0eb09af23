"""
The codes that both cores and everything above them share: states, causes, counters, results.

Plain integers, because the cores index their counters with them and `import warmset` must not
load `enum`. `warmset.events.RemovalCause` is the public form of the causes.
"""

from __future__ import annotations

# States of an entry; each entry has exactly one at any time.
CACHED = 0  # in the recency ring, found by look-ups
WEAK = 1  # kept by weak reference only, found by look-ups
HELD = 2  # outside the cache; closed when its last hold is released
WAITING = 3  # outside the cache, not held, not closed yet
CLOSED = 4  # its closer ran
NOTHING_TO_CLOSE = 5  # it has no closer, or it was kept weakly
CLOSE_FAILED = 6  # its closer raised
LEFT_OPEN = 7  # a caller who received it without a lease may still use it
PARENTS = 8  # after a fork: the parent process closes it
STATE_NAMES = (
    "cached",
    "weak",
    "held",
    "waiting",
    "closed",
    "nothing_to_close",
    "close_failed",
    "left_open",
    "parents",
)
STATES = len(STATE_NAMES)

# Causes of a removal. Up to MEMORY, a held or pinned instance is not removed; up to COLLECTED,
# the removal is an eviction.
NO_CAUSE = -1
IDLE = 0
SIZE = 1
MEMORY = 2
AGED = 3
RECYCLED = 4
INVALID = 5
COLLECTED = 6
CLEARED = 7
DISCARDED = 8
REPLACED = 9
SHUTDOWN = 10
CAUSES = 11

# Counters that the registry keeps in its core, besides look-ups, builds, removals and states.
WAITS = 0
FAILED_BUILDS = 1
LISTENER_FAILURES = 2
COUNTERS = 3

# Results of publishing an entry.
PUBLISHED = 0
STALE = 1  # the name was removed or registered anew since the build began
FULL = 2  # an instance has to be evicted first, and one can be

NO_LIMIT = float("inf")
