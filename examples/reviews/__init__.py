"""
A service that rates product reviews: five classes, an API, a task queue and a batch pipeline.

    uvicorn --app-dir examples reviews.api:app
    celery --workdir examples -A reviews.tasks worker --concurrency 2
    cd examples && python -m reviews.batch reviews/data/*.txt
    warmset run examples/reviews/pipeline.toml --app-dir examples
"""
