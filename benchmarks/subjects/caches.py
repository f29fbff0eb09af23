"""
The caches that others publish.

A hit is the cheapest look-up that a cache offers, and a miss its own way of building where it has
one: a peer is shown at its best. None of them imports, builds by name or calls a method.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .base import TTL_SECONDS, Kept, Subject, building

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..workload import Work


def _cachebox(cache: Any, work: Work) -> Kept:
    classes = work.classes
    get_or_build = cache.setdefault_with

    def fetch(name: str) -> Any:
        return get_or_build(name, classes[name])

    return Kept("get({name})", fetch, {"get": cache.get})


def cachebox_ttl(work: Work, size: int) -> Kept:
    """One TTL for all; first in, first out."""
    from cachebox import TTLCache

    return _cachebox(TTLCache(size, global_ttl=TTL_SECONDS), work)


def cachebox_vttl(work: Work, size: int) -> Kept:
    """A TTL for each entry."""
    from cachebox import VTTLCache

    cache = VTTLCache(size)
    classes = work.classes
    get_or_build = cache.setdefault_with

    def fetch(name: str) -> Any:
        return get_or_build(name, classes[name], TTL_SECONDS)

    return Kept("get({name})", fetch, {"get": cache.get})


def cachebox_lru(work: Work, size: int) -> Kept:
    """No TTL."""
    from cachebox import LRUCache

    return _cachebox(LRUCache(size), work)


def cachetools_ttl(work: Work, size: int) -> Kept:
    """One TTL for all, counted from the write."""
    from cachetools import TTLCache

    cache = TTLCache(size, TTL_SECONDS)
    return Kept("get({name})", building(cache.get, cache.__setitem__, work), {"get": cache.get})


def cachetools_lru(work: Work, size: int) -> Kept:
    """No TTL."""
    from cachetools import LRUCache

    cache = LRUCache(size)
    return Kept("get({name})", building(cache.get, cache.__setitem__, work), {"get": cache.get})


def lru_dict(work: Work, size: int) -> Kept:
    """No TTL."""
    from lru import LRU

    cache = LRU(size)
    return Kept("get({name})", building(cache.get, cache.__setitem__, work), {"get": cache.get})


def _moka(work: Work, size: int, **options: float) -> Kept:
    from moka_py import Moka

    cache: Any = Moka(size, policy="lru", **options)
    classes = work.classes
    get_with = cache.get_with

    def fetch(name: str) -> Any:
        return get_with(name, classes[name])

    return Kept("get({name})", fetch, {"get": cache.get})


def moka_ttl(work: Work, size: int) -> Kept:
    """TTL, counted from the write."""
    return _moka(work, size, ttl=TTL_SECONDS)


def moka_tti(work: Work, size: int) -> Kept:
    """Idle TTL, as ours."""
    return _moka(work, size, tti=TTL_SECONDS)


def theine(work: Work, size: int) -> Kept:
    """TTL for each entry; its own policy."""
    from theine import Cache

    cache: Any = Cache(size)
    ttl = timedelta(seconds=TTL_SECONDS)
    classes = work.classes

    def fetch(name: str) -> Any:
        instance, found = cache.get(name)
        if not found:
            instance = classes[name]()
            cache.set(name, instance, ttl)
        return instance

    return Kept("get({name})[0]", fetch, {"get": cache.get})


def cacheout(work: Work, size: int) -> Kept:
    """One TTL for all, counted from the write."""
    from cacheout import LRUCache

    cache = LRUCache(maxsize=size, ttl=TTL_SECONDS)
    classes = work.classes

    def build(name: str) -> Any:
        return classes[name]()

    def fetch(name: str) -> Any:
        return cache.get(name, default=build)

    return Kept("get({name})", fetch, {"get": cache.get})


def _subject(
    name: str, distribution: str, about: str, make: Callable[[Work, int], Kept], **options: bool
) -> Subject:
    return Subject(name, about, make, distribution=distribution, **options)


UNLOCKED = "`get`, and `[name] =` after a miss; without the lock that threads would need"
CACHES = (
    _subject("cachebox TTLCache", "cachebox", "`get`; builds by `setdefault_with`", cachebox_ttl),
    _subject("cachebox VTTLCache", "cachebox",
             "`get`; builds by `setdefault_with`, with a TTL each", cachebox_vttl),
    _subject("cachebox LRUCache", "cachebox", "`get`; builds by `setdefault_with`", cachebox_lru),
    _subject("cachetools TTLCache", "cachetools", UNLOCKED, cachetools_ttl, shared=False),
    _subject("cachetools LRUCache", "cachetools", UNLOCKED, cachetools_lru, shared=False),
    _subject("lru-dict", "lru-dict", UNLOCKED, lru_dict, shared=False),
    _subject("moka-py ttl", "moka-py", "`get`; builds by `get_with`; policy `lru`", moka_ttl),
    _subject("moka-py tti", "moka-py", "`get`; builds by `get_with`; policy `lru`", moka_tti),
    _subject("theine", "theine", "`get`, and `set` with a TTL after a miss", theine),
    _subject("cacheout LRUCache", "cacheout",
             "`get`; builds by `get(name, default=build)`", cacheout),
)  # fmt: skip
