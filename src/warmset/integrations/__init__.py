"""
Leases, warm-up, closing and health checks for web frameworks and task queues.

Each module needs its framework, and nothing else imports it: `fastapi`, `flask`, `celery`.
"""
