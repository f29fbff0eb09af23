"""Foreign text: what is escaped, and that log records, reports and metrics contain only that."""

from __future__ import annotations

import importlib
import io
import logging
from typing import Any

import pytest

FOREIGN = {
    "\x1b]0;title\x07\x1b[2J": r"\x1b]0;title\x07\x1b[2J",
    "a\r\nPASS: forged": r"a\r\nPASS: forged",
    "\x9b2J\x7f": r"\x9b2J\x7f",
    "\u202eabc\u2066\u200f\u061c": r"\u202eabc\u2066\u200f\u061c",
    "\u2028\u2029\x85": r"\u2028\u2029\x85",
    "\udcff\ud800": r"\udcff\ud800",
    "\U000e0001\ufeff\u200b": r"\U000e0001\ufeff\u200b",
    "": "",
    "Überschrift [bold] <b> 'x' \\ 日本": "Überschrift [bold] <b> 'x' \\ 日本",
}


class Odd(str):
    """A str whose overrides lie."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\x1b"

    def isprintable(self) -> bool:
        return True

    def __iter__(self) -> Any:
        return iter("\x1b")


@pytest.fixture
def printable(ws: Any) -> Any:
    return importlib.import_module("warmset._text").printable


@pytest.mark.parametrize("text", FOREIGN)
def test_what_is_escaped(printable: Any, text: str) -> None:
    assert printable(text) == FOREIGN[text]
    printable(text).encode("utf-8")


def test_all_characters(printable: Any) -> None:
    """What remains is printable, except for what the caller keeps."""
    for start in range(0, 0x110000, 0x1000):
        text = "".join(map(chr, range(start, start + 0x1000)))
        assert printable(text).isprintable()
    assert printable("a\n\tb\x1b", keep="\n\t") == "a\n\tb\\x1b"


def test_other_objects(printable: Any) -> None:
    """An exact str, whatever a subclass says."""
    assert printable(Odd("a\x1b")) == r"a\x1b"
    assert type(printable(Odd("a"))) is str
    assert printable(ValueError("a\nb")) == r"a\nb"


@pytest.fixture
def logged(ws: Any) -> Any:
    """What a handler writes with the formatter of `logging`, and the records."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    records: list[logging.LogRecord] = []
    handler.addFilter(lambda record: records.append(record) is None)
    root = logging.getLogger("warmset")
    root.addHandler(handler)
    yield stream, records
    root.removeHandler(handler)


def test_log_records(ws: Any, make: Any, samples: Any, logged: Any) -> None:
    """The message, its fields and the traceback; ordinary records keep template and arguments."""
    stream, records = logged
    hostile = "\x1b[2J\n\u202e\udc80"

    def fail(cls: Any) -> Any:
        raise ValueError(hostile)

    registry = make({f"A{hostile}": "samples.Alpha", "Beta": "samples.Beta"})
    registry.register_instantiation_rule(f"A{hostile}", fail)
    with pytest.raises(ws.BuildError):
        registry.get_instance(f"A{hostile}")
    registry.add_listener(lambda event: fail(None))
    registry.get_instance("Beta")
    registry.clear_cache()
    text = stream.getvalue()
    assert text.replace("\n", "").isprintable()
    assert r"\x1b[2J" in text
    assert "Traceback" in text
    (failed,) = [record for record in records if getattr(record, "stage", None) == "build"]
    assert failed.class_name == r"A\x1b[2J\n\u202e\udc80"  # type: ignore[attr-defined]
    assert failed.args is None
    registry.register_instantiation_rule("Beta", lambda cls: None)
    with pytest.raises(ws.BuildError):
        registry.get_instance("Beta")
    assert records[-1].args[0] == "Beta"  # type: ignore[index]


def test_an_argument_without_a_repr(ws: Any, logged: Any) -> None:
    """It costs the record, not the caller."""
    logs = importlib.import_module("warmset._logs")

    class Bad:
        def __repr__(self) -> str:
            raise RuntimeError

    logs.warning("share", "%r", Bad())
    assert logged[0].getvalue() == ""


def test_reports_of_memory(ws: Any, make: Any, samples: Any) -> None:
    """One line for each thing that they list, whatever its name."""
    name = "A\nbuilt 9 in 0.1 s"
    registry = make({name: "samples.Alpha"})
    registry.register_instantiation_rule(name, lambda cls: None)
    report = registry.warm_up([name])
    assert len(str(report).splitlines()) == 2
    assert all(line.isprintable() for line in str(report).splitlines())


def test_an_error_of_a_handler(ws: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """It is printed, since no handler can log it."""
    logs = importlib.import_module("warmset._logs")

    class Bad:
        def __repr__(self) -> str:
            raise RuntimeError("\x1b[2J\udcff")

    logs.warning("share", "%r", Bad())
    printed = capsys.readouterr().err
    assert r"RuntimeError: \x1b[2J\udcff" in printed
    assert printed.replace("\n", "").isprintable()
