"""Classes whose instances are shared between processes; builds are noted in a file."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import numpy as np


def note(what: str) -> None:
    """Add a line to the file that the environment names: one write, so that lines stay whole."""
    with open(os.environ["WARMSET_TEST_NOTES"], "a", buffering=1) as notes:
        notes.write(f"{what} {os.getpid()}\n")


class Table:
    """Holds arrays, as a model does."""

    def __init__(self, rows: int = 1000) -> None:
        note("Table")
        self.weights = np.arange(rows * 10, dtype=np.float64).reshape(rows, 10)
        self.names = {"first": 1, "second": [2, 3]}
        self.fortran = np.asfortranarray(self.weights[:20])
        self.objects = np.array([{"a": 1}, None], dtype=object)

    def total(self) -> float:
        return float(self.weights.sum())

    def change(self) -> None:
        self.weights[0, 0] = 99.0


class SlowTable(Table):
    """Notes that its build has begun, and waits until a file exists."""

    def __init__(self) -> None:
        note("SlowTable begins")
        gate = os.environ.get("WARMSET_TEST_GATE")
        while gate and not os.path.exists(gate):
            time.sleep(0.005)
        super().__init__(50)


class Locked:
    """Cannot be pickled."""

    def __init__(self) -> None:
        note("Locked")
        self.lock = threading.Lock()
        self.value = 7


class Pair:
    """Has another instance of the registry in it."""

    def __init__(self, table: Any) -> None:
        note("Pair")
        self.table = table
        self.own = np.ones(100)


class Fails:
    """Cannot be built."""

    def __init__(self) -> None:
        note("Fails")
        raise OSError("no such model")


class Sly:
    """Can be stored, and not be opened again."""

    def __init__(self) -> None:
        note("Sly")
        self.value = 1

    def __setstate__(self, state: Any) -> None:
        raise ValueError("not today")


def to_state(instance: Any) -> Any:
    return {"value": instance.value}


def from_state(cls: type, state: Any) -> Any:
    made = cls.__new__(cls)
    made.value = state["value"]
    return made


def bad_state(instance: Any) -> Any:
    raise RuntimeError("no state to be had")


class Closing:
    """Notes that it was closed."""

    def __init__(self) -> None:
        note("Closing")
        self.values = np.zeros(10)

    def close(self) -> None:
        note("closed")


class Keyed(Table):
    """The instance of a key of a family."""

    def __init__(self, key: Any, rows: int = 10) -> None:
        super().__init__(rows)
        self.key = key


class Wrapper:
    """Has another instance of the registry in it."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner


def locked_or_keyed(key: Any) -> Any:
    """Build what cannot be pickled for some keys."""
    return Locked() if key == "locked" else Keyed(key)
