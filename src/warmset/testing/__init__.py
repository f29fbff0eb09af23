"""
For tests of code that uses warmset: a clock moved by hand, evictions one by one, bounded RSS.

Nothing here needs pytest; `warmset.testing.plugin` gives the same as its fixtures.
"""

from __future__ import annotations

from .rss import RssGrowth, assert_bounded_rss
from .stepper import EvictionStepper
from .structure import check_structure
from .timer import FakeTimer

__all__ = ["EvictionStepper", "FakeTimer", "RssGrowth", "assert_bounded_rss", "check_structure"]
