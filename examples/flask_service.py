"""
A Flask service: `cd examples && gunicorn --config gunicorn.conf.py flask_service:app`.

Each request holds its instances, whatever is evicted meanwhile. See docs/serving.md.
"""

from pathlib import Path

from flask import Flask, request

from warmset import MethodRegistry
from warmset.integrations.flask import health_blueprint, init_app, leased

registry = MethodRegistry.from_file(Path(__file__).with_name("warmset.toml"))
app = Flask(__name__)
init_app(app, registry, warm_up=["Tagger"])
app.register_blueprint(health_blueprint(registry))


@app.get("/tags")
def tags() -> list[str]:
    return leased(registry, "Tagger").tag(request.args["text"])


@app.get("/summary")
def summary() -> list[str]:
    return leased(registry, "Summarizer").summarize(request.args["text"])
