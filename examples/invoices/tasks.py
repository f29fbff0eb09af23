"""The task queue: `celery --workdir examples -A invoices.tasks worker`."""

from celery import Celery

from warmset import BuildError
from warmset.integrations.celery import leased, setup_worker

from .models import Processor
from .wiring import models, registry

app = Celery("invoices", broker="memory://", backend="cache+memory://")
setup_worker(registry, warm_up=["Processor", models.key("de")])


@app.task(autoretry_for=(BuildError,), retry_backoff=True, max_retries=2)
@leased(registry, processor="Processor")
def book(language: str, image: str, *, processor: Processor) -> dict[str, object]:
    with models.use(language) as model:
        return processor.book(image, model)
