"""The API: `uvicorn --app-dir examples invoices.api:app`."""

from collections.abc import Iterator
from typing import Annotated, Literal

from fastapi import Depends, FastAPI

from warmset.integrations.fastapi import health_router, leased, lifespan

from .models import CurrencyTable, DatabasePool, LanguageModel, Processor, RatesClient
from .wiring import models, registry

app = FastAPI(lifespan=lifespan(registry, warm_up=["Processor", "RatesClient", models.key("en")]))
app.include_router(health_router(registry))


def held_model(language: Literal["en", "de", "fr", "it"]) -> Iterator[LanguageModel]:
    """The model of the language in the request, held until the response was sent."""
    with models.use(language) as model:
        yield model


@app.post("/invoices/{language}")
def book(
    image: str,
    model: Annotated[LanguageModel, Depends(held_model)],
    processor: Annotated[Processor, Depends(leased(registry, "Processor"))],
) -> dict[str, object]:
    return processor.book(image, model)


@app.get("/rates")
async def rates(
    client: Annotated[RatesClient, Depends(leased(registry, "RatesClient"))],
) -> dict[str, float]:
    return await client.fetch()


@app.post("/rates/stale")
def stale(table: Annotated[CurrencyTable, Depends(leased(registry, CurrencyTable))]) -> None:
    table.stale = True


@app.get("/count")
def count(pool: Annotated[DatabasePool, Depends(leased(registry, DatabasePool))]) -> int:
    return pool.count()
