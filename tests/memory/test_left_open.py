"""What a closed registry has not closed is logged, with what refers to it."""

from __future__ import annotations

from typing import Any

import pytest

kept: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_kept() -> Any:
    kept.clear()
    yield
    kept.clear()


@pytest.mark.counts
def test_an_instance_that_is_referenced(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The log names what refers to it; one that nobody refers to is closed and not mentioned."""
    registry = make()
    # Made here: the collector knows nothing of the objects that are older than the tests.
    mine = [registry.get_instance("Alpha")]
    registry.get_instance("Beta")
    registry.close()
    (record,) = caplog.records
    assert record.name == "warmset.removals"
    assert record.getMessage().startswith(
        "the registry is closed, but 'Alpha' is left open: it is referenced by "
    )
    assert "test_an_instance_that_is_referenced" in record.getMessage()
    assert "the local variable mine" in record.getMessage()
    assert record.class_name == "Alpha"
    assert not mine[0].is_closed
    assert registry.stats().left_open == 1
    caplog.clear()
    registry.close()
    assert caplog.records == []


def test_an_instance_that_is_held(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It is closed at its release, so what refers to it does not matter."""
    registry = make()
    with registry.use("Alpha") as alpha:
        registry.close()
        assert caplog.messages == [
            "the registry is closed, but 'Alpha' is held by thread 'MainThread'; it is closed at"
            " its release"
        ]
    assert alpha.is_closed


def test_an_instance_that_only_a_loop_can_close(ws: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Client:
        async def aclose(self) -> None: ...

    registry = ws.MethodRegistry({})
    registry.register("Client", Client)
    registry.get_instance("Client")
    registry.close()
    assert caplog.messages == [
        "the registry is closed, but 'Client' is left open: it has an aclose(), which only"
        " AsyncMethodExecutor.aclose awaits"
    ]


def test_many_instances(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The first are named, the others counted."""
    registry = make({})
    for at in range(23):
        registry.register(f"C{at}", "samples.Alpha")
        kept.append(registry.get_instance(f"C{at}"))
    registry.close()
    assert len(caplog.messages) == 21
    assert caplog.messages[-1] == "3 more instances are left open"


def test_a_removal_and_the_end_of_a_process_log_nothing(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Only a call of `close` does: at the end, globals refer to everything."""
    registry = make()
    kept.append(registry.get_instance("Alpha"))
    registry.clear_cache()
    kept.append(registry.get_instance("Alpha"))
    registry.close_own()
    assert registry.closed
    assert caplog.messages == []
