"""The API: `uvicorn --app-dir examples reviews.api:app`."""

from collections.abc import Iterator
from typing import Annotated, Literal

from fastapi import Depends, FastAPI

from warmset.integrations.fastapi import health_router, leased, lifespan

from .models import Archive, LanguageGuesser, Rater, Reviewer
from .warm import raters, registry

app = FastAPI(lifespan=lifespan(registry, warm_up=[LanguageGuesser, raters.key("en")]))
app.include_router(health_router(registry))


def held_rater(language: Literal["en", "fr"]) -> Iterator[Rater]:
    """The rater of the language in the request, held until the response was sent."""
    with raters.use(language) as rater:
        yield rater


@app.get("/language")
def language(
    text: str, guesser: Annotated[LanguageGuesser, Depends(leased(registry, LanguageGuesser))]
) -> str:
    return guesser.guess(text)


@app.post("/reviews/{language}")
def add(
    text: str,
    rater: Annotated[Rater, Depends(held_rater)],
    reviewer: Annotated[Reviewer, Depends(leased(registry, Reviewer))],
    archive: Annotated[Archive, Depends(leased(registry, "archive"))],
) -> dict[str, str | int]:
    rating = rater.rate(text)
    archive.add(text, rating)
    return {"rating": rating, "verdict": reviewer.describe(rating)}


@app.get("/mean")
def mean(archive: Annotated[Archive, Depends(leased(registry, "archive"))]) -> float:
    return archive.mean()
