"""
Tools for testing code that uses warmset: a manual clock, single-step evictions, an RSS bound.

This package does not require pytest; `warmset.testing.plugin` provides the tools as fixtures.
"""

from __future__ import annotations

from .rss import RssGrowth, assert_bounded_rss
from .stepper import EvictionStepper
from .structure import check_structure
from .timer import FakeTimer

__all__ = ["EvictionStepper", "FakeTimer", "RssGrowth", "assert_bounded_rss", "check_structure"]
