"""The classes of the service; nothing here knows warmset."""

import queue
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Invoice:
    """What is read from the image of an invoice."""

    number: str
    language: str
    currency: str
    amount: float


class OcrEngine:
    """Stands for an engine with large weights."""

    def __init__(self, dpi: int = 300) -> None:
        self.dpi = dpi
        self._weights = bytearray(1_000_000)

    def read(self, image: str) -> str:
        """Return the text in an image."""
        return image.replace("\x00", "")


class LanguageModel:
    """Extracts the fields of an invoice in one language."""

    KEYWORDS = {"en": "Invoice", "de": "Rechnung", "fr": "Facture", "it": "Fattura"}  # noqa: RUF012

    def __init__(self, language: str, *, beam: int = 4) -> None:
        if language not in self.KEYWORDS:
            raise ValueError(f"no model for {language!r}")
        self.language, self.beam = language, beam
        self.closed = False

    def extract(self, text: str) -> Invoice:
        """Return the invoice in a text."""
        if self.closed:
            raise RuntimeError("the model is closed")
        keyword = self.KEYWORDS[self.language]
        found = re.search(rf"{keyword} (\S+) (\w{{3}}) ([\d.]+)", text)
        if found is None:
            raise ValueError("no invoice in this text")
        return Invoice(found[1], self.language, found[2], float(found[3]))

    def close(self) -> None:
        """Release the weights."""
        self.closed = True


class CurrencyTable:
    """Rates that become stale."""

    def __init__(self) -> None:
        self.rates = {"EUR": 1.0, "USD": 0.9, "CHF": 1.05}
        self.stale = False

    def to_euro(self, amount: float, currency: str) -> float:
        """Convert an amount."""
        return round(amount * self.rates[currency], 2)

    def invoice_to_euro(self, invoice: Invoice) -> float:
        """Convert the amount of an invoice."""
        return self.to_euro(invoice.amount, invoice.currency)


def is_fresh(table: CurrencyTable) -> bool:
    """Return whether rates may still be used."""
    return not table.stale


class DatabasePool:
    """A few connections, of which each caller gets one at a time."""

    def __init__(self, path: str, size: int = 2) -> None:
        self._free: queue.Queue[sqlite3.Connection] = queue.Queue()
        for _ in range(size):
            self._free.put(sqlite3.connect(path, check_same_thread=False))
        self._size = size
        with self.connection() as connection:
            connection.execute("create table if not exists invoice (number text, euro real)")
            connection.commit()

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection for the time of a ``with`` block."""
        connection = self._free.get(timeout=10)
        try:
            yield connection
        finally:
            self._free.put(connection)

    def save(self, number: str, euro: float) -> None:
        """Book an invoice."""
        with self.connection() as connection:
            connection.execute("insert into invoice values (?, ?)", (number, euro))
            connection.commit()

    def count(self) -> int:
        """Return how many invoices were booked."""
        with self.connection() as connection:
            return int(connection.execute("select count(*) from invoice").fetchone()[0])

    def close(self) -> None:
        """Close the connections when the last one was given back."""
        for _ in range(self._size):
            self._free.get(timeout=10).close()


class RatesClient:
    """Stands for a client of a bank, which belongs to an event loop."""

    async def fetch(self) -> dict[str, float]:
        """Return the rates of today."""
        return {"USD": 0.91}


class Processor:
    """Books invoices; it needs the engine, the rates and the pool."""

    def __init__(
        self, ocr: OcrEngine, to_euro: Callable[[float, str], float], pool: DatabasePool
    ) -> None:
        self.ocr, self.to_euro, self.pool = ocr, to_euro, pool

    def book(self, image: str, model: LanguageModel) -> dict[str, object]:
        """Read an invoice, convert its amount, and save it."""
        invoice = model.extract(self.ocr.read(image))
        euro = self.to_euro(invoice.amount, invoice.currency)
        self.pool.save(invoice.number, euro)
        return {"number": invoice.number, "euro": euro, "language": invoice.language}
