"""
Celery tasks: `celery --workdir examples -A celery_tasks worker --concurrency 2`.

Each worker process has its own instances: it warms up when it starts, and closes them when it ends.
See docs/workers.md.
"""

import os
from pathlib import Path

from celery import Celery

from warmset import MethodRegistry
from warmset.errors import BuildError
from warmset.integrations.celery import leased, setup_worker

app = Celery(
    "celery_tasks",
    broker=os.environ.get("BROKER_URL", "memory://"),
    backend=os.environ.get("RESULT_URL", "cache+memory://"),
)
# Made by import, before the fork; no instance is built here.
registry = MethodRegistry.from_file(Path(__file__).with_name("warmset.toml"))
setup_worker(registry, warm_up=["Tagger"])


@app.task(autoretry_for=(BuildError,), retry_backoff=True)
@leased(registry, tagger="Tagger")
def tags(text, *, tagger):
    return tagger.tag(text)


@app.task
def summary(text):
    with registry.use("Summarizer") as summarizer:
        return summarizer.summarize(text)
