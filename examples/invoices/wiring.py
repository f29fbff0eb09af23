"""All instances of the service, in one registry."""

import os
from collections.abc import AsyncIterator, Iterator

from warmset import MethodRegistry

from .models import (
    CurrencyTable,
    DatabasePool,
    LanguageModel,
    OcrEngine,
    Processor,
    RatesClient,
    is_fresh,
)

registry = MethodRegistry({}, max_cache_size=5)
registry.register(OcrEngine, kwargs={"dpi": 400})
registry.register(CurrencyTable, validate=is_fresh, validate_interval_seconds=0.0)
registry.register(
    DatabasePool,
    args=(os.environ.get("INVOICES_DATABASE", ":memory:"),),
    kwargs={"size": 1},
    pin=True,
    after_fork="drop",  # a child must not use the connections of its parent
)
models = registry.family("LanguageModel", LanguageModel, max_cache_size=2, kwargs={"beam": 2})


@registry.provider("Processor")
def processor() -> Iterator[Processor]:
    """Hold what a processor needs as long as it exists."""
    with registry.use(OcrEngine) as ocr, registry.use(DatabasePool) as pool:
        # Bound, and not held: so the processor always has a table that was validated.
        yield Processor(ocr, registry.bind(CurrencyTable.to_euro), pool)


@registry.provider("RatesClient")
async def rates_client() -> AsyncIterator[RatesClient]:
    """Open a client in the event loop that uses it."""
    yield RatesClient()
