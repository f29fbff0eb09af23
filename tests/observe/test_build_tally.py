"""Totals of builds, read while other threads add to them."""

from __future__ import annotations

import threading
from typing import Any

from threads import in_threads

from warmset.events import BuildEvent

ADDERS, EVENTS = 3, 1500


def test_a_reader_sees_each_build_in_all_totals_or_in_none(ws: Any) -> None:
    from warmset.observe.builds import BuildTally

    tally = BuildTally(10)
    event = BuildEvent("Alpha", succeeded=True, started=0.0, seconds=1.0)
    done = threading.Event()
    wrong: list[Any] = []

    def add() -> None:
        for _ in range(EVENTS):
            tally(event)

    def read() -> None:
        while not done.is_set():
            cumulative, seconds, by_label = tally.read()
            total = cumulative[-1][1]
            sums = [sum(each) for each in zip(*by_label.values(), strict=True)] or [0, 0, 0.0]
            if (total, float(total)) != (sums[0], seconds):
                wrong.append((total, seconds, sums))

    reader = threading.Thread(target=read)
    reader.start()
    in_threads(*[add] * ADDERS)
    done.set()
    reader.join()
    assert wrong == []
    assert tally.read()[0][-1][1] == ADDERS * EVENTS
