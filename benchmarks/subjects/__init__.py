"""What is measured: floors, both cores, the former registry, and what others publish."""

from __future__ import annotations

from .base import Kept, Subject, absence
from .caches import CACHES
from .containers import CONTAINERS
from .ours import SUBJECTS as OURS
from .pipeline import PIPELINE
from .standard import DICT, LRU_CACHE

SUBJECTS = (DICT, *OURS, LRU_CACHE, PIPELINE, *CACHES, *CONTAINERS)

__all__ = ["DICT", "LRU_CACHE", "OURS", "PIPELINE", "SUBJECTS", "Kept", "Subject", "absence"]
