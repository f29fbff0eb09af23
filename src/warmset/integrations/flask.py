"""
Flask: an instance that is held for a request, warm-up, and health checks.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar, overload

from flask import (
    Blueprint,
    abort,
    after_this_request,
    current_app,
    g,
    has_request_context,
    jsonify,
    make_response,
    request,
)

from ..errors import MethodRegistryError
from .health import findings_of, liveness, readiness
from .keys import checked, is_temporary, retry_after, warm_up_keys

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flask import Flask, Response
    from flask.typing import ResponseReturnValue

    from ..api import Registry
    from ..family_keys import FamilyKey
    from ..memory.profiles import Profile

_Instance = TypeVar("_Instance")

__all__ = ["health_blueprint", "init_app", "leased"]

_EXTENSION = "warmset"
_LEASES = "warmset.leases"


def init_app(
    app: Flask,
    registry: Registry,
    *,
    warm_up: Profile | Iterable[str | type | FamilyKey] | None = None,
    deadline_seconds: float | None = None,
) -> None:
    """
    Let the requests of an application hold instances of a registry.

    Args:
        app: The application.
        registry: The registry. It is closed when the process exits.
        warm_up: What to build now: a profile, or class names, classes and keys of families.
            With a server that forks after it has loaded the application, its workers share what is
            built here; see docs/serving.md.
        deadline_seconds: Start no build of the warm-up after this time; None: no deadline.

    Call it once for each application.
    """
    app.extensions[_EXTENSION] = registry
    app.teardown_request(_release_request)
    app.teardown_appcontext(_release_context)
    if warm_up is not None:
        registry.warm_up(warm_up_keys(registry, warm_up), deadline_seconds=deadline_seconds)


@overload
def leased(registry: Registry, key: type[_Instance]) -> _Instance: ...
@overload
def leased(registry: Registry, key: str | FamilyKey) -> Any: ...
def leased(registry: Registry, key: str | type | FamilyKey) -> Any:
    """
    Look an instance up, and hold it until the response to the request was sent.

    Args:
        registry: The registry.
        key: A class name, a class that is registered itself, or a key of a family.

    Returns:
        The instance. It may be evicted during the request, and is closed afterwards.

    Raises:
        HTTPException: The instance cannot be provided now: status 503, with the header
            ``Retry-After`` while the failure is remembered.
        UnknownClassError: The key is not registered.
        RuntimeError: There is no application context, or `init_app` was not called.

    Outside a request, it is held until the end of the application context. Any number of requests
    may hold one instance at once, so its methods have to be thread-safe.
    """
    if _EXTENSION not in current_app.extensions:
        raise RuntimeError("the application holds no leases; expected a call of init_app before")
    if has_request_context():
        stack = request.environ.get(_LEASES)
        if stack is None:
            stack = request.environ[_LEASES] = ExitStack()
            after_this_request(_release_with_response)
    else:
        stack = g.setdefault(_LEASES, ExitStack())
    try:
        return stack.enter_context(registry.use(checked(key)))
    except MethodRegistryError as error:
        if not is_temporary(error):
            raise
        response = make_response(jsonify(detail=f"{error.class_name!r} is not available"), 503)
        response.headers.update(retry_after(registry, key))
        abort(response)


def _release_with_response(response: Response) -> Response:
    # A streamed response is sent when the request and its contexts have ended.
    stack = request.environ.pop(_LEASES, None)
    if stack is not None:
        response.call_on_close(stack.close)
    return response


def _release_request(error: BaseException | None) -> None:
    # There is no response, or it was made before the lease.
    _close(request.environ.pop(_LEASES, None))


def _release_context(error: BaseException | None) -> None:
    _close(g.pop(_LEASES, None))


def _close(stack: ExitStack | None) -> None:
    if stack is not None:
        stack.close()


def health_blueprint(registry: Registry, *, url_prefix: str = "/health") -> Blueprint:
    """
    Make a blueprint with ``/health/live``, ``/health/ready`` and ``/health/findings``.

    Args:
        registry: The registry.
        url_prefix: The prefix of the paths.

    Returns:
        The blueprint. ``live`` and ``ready`` return 503 when the registry is closed; ``findings``
        is what `Registry.health` finds, with 200. They contain class names.
    """
    blueprint = Blueprint("warmset_health", __name__, url_prefix=url_prefix)

    def live() -> ResponseReturnValue:
        status, body = liveness(registry)
        return jsonify(body), status

    def ready() -> ResponseReturnValue:
        status, body = readiness(registry)
        return jsonify(body), status

    def findings() -> ResponseReturnValue:
        return jsonify(findings_of(registry))

    for view in (live, ready, findings):
        blueprint.add_url_rule(f"/{view.__name__}", view_func=view)
    return blueprint
