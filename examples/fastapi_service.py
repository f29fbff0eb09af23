"""
A FastAPI service: `uvicorn --app-dir examples fastapi_service:app`.

Each request holds its instances, whatever is evicted meanwhile. See docs/serving.md.
"""

from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI
from text_models import Summarizer, Tagger

from warmset import MethodRegistry
from warmset.integrations.fastapi import health_router, leased, lifespan

registry = MethodRegistry.from_file(Path(__file__).with_name("warmset.toml"))
app = FastAPI(lifespan=lifespan(registry, warm_up=["Tagger"]))
app.include_router(health_router(registry))

HeldTagger = Annotated[Tagger, Depends(leased(registry, "Tagger"))]
HeldSummarizer = Annotated[Summarizer, Depends(leased(registry, "Summarizer"))]


@app.get("/tags")
def tags(text: str, tagger: HeldTagger) -> list[str]:
    return tagger.tag(text)


@app.get("/report")
def report(text: str, tagger: HeldTagger, summarizer: HeldSummarizer) -> dict[str, list[str]]:
    return {"tags": tagger.tag(text), "summary": summarizer.summarize(text)}
