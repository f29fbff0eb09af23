"""The structural check of a registry, as the test kit has it."""

from __future__ import annotations

from warmset.testing.structure import check_structure as check

__all__ = ["check"]
