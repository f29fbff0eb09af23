"""The task queue: `celery --workdir examples -A reviews.tasks worker --concurrency 2`."""

import os

from celery import Celery

from warmset.errors import BuildError
from warmset.integrations.celery import leased, setup_worker

from .models import Reviewer
from .warm import rate, raters, registry

app = Celery(
    "reviews",
    broker=os.environ.get("BROKER_URL", "memory://"),
    backend=os.environ.get("RESULT_URL", "cache+memory://"),
)
setup_worker(registry, warm_up=["LanguageGuesser", raters.key("en")])


@app.task(autoretry_for=(BuildError,), retry_backoff=True)
@leased(registry, reviewer=Reviewer, archive="archive")
def review(text, *, reviewer, archive):
    language, rating = rate(text)
    archive.add(text, rating)
    return language, reviewer.describe(rating)
