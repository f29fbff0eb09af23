"""`warmset.integrations.fastapi`, with FastAPI and a uvicorn server."""

# No postponed annotations: FastAPI could not resolve those of functions within the tests.

import asyncio
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from serving import NAMES, One, Two, check_models, make_registry, request_all, uvicorn_server

pytest.importorskip("uvicorn")
pytest.importorskip("httpx")
fastapi = pytest.importorskip("fastapi")
pytest.importorskip("fastapi.responses")
Depends = fastapi.Depends


@pytest.fixture
def integration(ws: Any) -> Any:
    from warmset.integrations import fastapi as module

    return module


def make_app(integration: Any, registry: Any, **options: Any) -> Any:
    app = fastapi.FastAPI(lifespan=integration.lifespan(registry, **options))
    app.include_router(integration.health_router(registry))
    for name in (*NAMES, "Broken", "Unknown"):
        lease = integration.leased(registry, name)

        def work(text: str, model: Annotated[Any, Depends(lease)]) -> dict[str, str]:
            return {"result": model.work(text)}

        async def awork(text: str, model: Annotated[Any, Depends(lease)]) -> dict[str, str]:
            await asyncio.sleep(0)
            return {"result": model.work(text)}

        app.get(f"/work/{name}")(work)
        app.get(f"/awork/{name}")(awork)
    return app


@pytest.mark.parametrize("path", ["/work", "/awork"])
def test_no_request_fails_while_instances_are_evicted(ws: Any, integration: Any, path: str) -> None:
    """Each is held for its request, and closed once, after the last of its requests."""
    registry = make_registry(ws)
    with uvicorn_server(make_app(integration, registry)) as client:
        answers = request_all(client, 300, path)
    assert answers == [(200, {"result": f"{NAMES[at % 3]} abc"}) for at in range(300)]
    assert registry.closed
    check_models(registry, least_builds=20)


def test_an_instance_is_released_when_the_request_has_ended(ws: Any, integration: Any) -> None:
    """Also if the endpoint raises; a class is a key, too."""
    registry = make_registry(ws)
    app = fastapi.FastAPI()
    held: list[Any] = []

    @app.get("/fail")
    def fail(model: Annotated[One, Depends(integration.leased(registry, One))]) -> None:
        held.extend(hold.class_name for hold in registry.holders())
        registry.discard("One")
        assert not model.closed
        raise fastapi.HTTPException(418)

    with uvicorn_server(app) as client:
        assert client.get("/fail").status_code == 418
    assert held == ["One"]
    assert registry.holders() == []
    registry.close()
    check_models(registry, least_builds=1)


def test_a_streamed_response_keeps_its_instance(ws: Any, integration: Any) -> None:
    """Until it was sent."""
    registry = make_registry(ws)
    app = fastapi.FastAPI()

    @app.get("/stream")
    def stream(model: Annotated[One, Depends(integration.leased(registry, One))]) -> Any:
        def generate() -> Any:
            registry.discard("One")
            yield model.work("a")

        return fastapi.responses.StreamingResponse(generate())

    with uvicorn_server(app) as client:
        assert client.get("/stream").text == "One a"
    registry.close()
    check_models(registry, least_builds=1)


def test_an_instance_that_is_not_available(ws: Any, integration: Any) -> None:
    """503 and a time to try again; the text of the error is not shown to the client."""
    registry = make_registry(ws, retry_after_seconds=7.5)
    with uvicorn_server(make_app(integration, registry)) as client:
        for _ in range(2):
            response = client.get("/work/Broken", params={"text": ""})
            assert (response.status_code, response.headers["Retry-After"]) == (503, "8")
            assert response.json() == {"detail": "'Broken' is not available"}
        # A name that is not registered is a mistake of the program.
        assert client.get("/work/Unknown", params={"text": ""}).status_code == 500


def test_a_class_that_is_not_registered(ws: Any, integration: Any) -> None:
    registry = make_registry(ws)
    registry.register("Again", One)
    for key, problem in [
        (One, ws.errors.AmbiguousClassError),
        (type("Thre", (), {}), ws.errors.UnknownClassError),
    ]:
        with pytest.raises(problem):
            asyncio.run(integration.leased(registry, key)().__anext__())
    with pytest.raises(TypeError, match="a class name must be a str"):
        integration.leased(registry, 3)
    for in_background in (False, True):
        app = make_app(integration, registry, warm_up=["Thre"], in_background=in_background)
        started = app.router.lifespan_context(app).__aenter__()
        with pytest.raises(ws.errors.UnknownClassError, match="nearest: 'Three'"):
            asyncio.run(started)


@pytest.mark.parametrize("in_background", [False, True])
def test_the_lifespan_warms_up_and_closes(ws: Any, integration: Any, in_background: bool) -> None:
    """A class that fails does not stop the application; another lifespan runs within it."""
    registry = make_registry(ws, max_cache_size=5)
    events: list[str] = []

    @asynccontextmanager
    async def inner(app: Any) -> Any:
        events.append("begin")
        yield {"key": "value"}
        events.append("closed" if registry.closed else "open")

    app = make_app(
        integration,
        registry,
        warm_up=[One, "Two", "Broken"],
        in_background=in_background,
        then=inner,
    )
    with uvicorn_server(app) as client:
        while client.get("/health/ready").status_code == 503:
            assert in_background
        assert client.get("/health/ready").json() == {
            "status": "ready", "cached": 2, "max_cache_size": 5,
        }  # fmt: skip
        assert registry.stats().builds == 2
    assert events == ["begin", "open"]
    check_models(registry, least_builds=2)


def test_the_lifespan_warms_up_what_is_built_asynchronously(ws: Any, integration: Any) -> None:
    """In the loop of the application; the generator ends there, too."""
    registry = ws.MethodRegistry({})
    loops: list[Any] = []

    @registry.provider("Client")
    async def client() -> Any:
        loops.append(asyncio.get_running_loop())
        yield object()
        loops.append(asyncio.get_running_loop())

    @registry.provider("Broken")
    async def broken() -> Any:
        raise OSError("no connection")

    app = fastapi.FastAPI(lifespan=integration.lifespan(registry, warm_up=["Broken", "Client"]))
    app.include_router(integration.health_router(registry))

    held = fastapi.Depends(integration.leased(registry, "Client"))

    @app.get("/client")
    async def use(client: Any = held) -> bool:
        return asyncio.get_running_loop() is loops[0]

    with uvicorn_server(app) as requests:
        assert requests.get("/health/ready").json()["cached"] == 1
        assert registry.stats().builds == 1
        assert requests.get("/client").json() is True
        assert registry.stats().builds == 1
    assert loops == loops[:1] * 2
    assert registry.closed


def test_the_health_checks(ws: Any, integration: Any) -> None:
    registry = make_registry(ws)
    app = fastapi.FastAPI()
    app.include_router(integration.health_router(registry, prefix="/status"))
    with uvicorn_server(app) as client:
        assert client.get("/status/live").json() == {"status": "alive"}
        assert client.get("/status/findings").json() == {"findings": []}
        with pytest.raises(ws.MethodRegistryError):
            registry.get_instance("Broken")
        findings = client.get("/status/findings").json()["findings"]
        assert [finding["kind"] for finding in findings] == ["builds_failing"]
        assert set(findings[0]) == {
            "kind", "severity", "class_name", "figure", "threshold", "advice",
        }  # fmt: skip
        registry.close()
        for path in ("live", "ready"):
            response = client.get(f"/status/{path}")
            assert (response.status_code, response.json()) == (503, {"status": "closed"})


def test_instances_with_aclose_are_closed_in_the_loop(ws: Any, integration: Any) -> None:
    registry = ws.MethodRegistry({})
    closed: list[str] = []

    class Client:
        async def aclose(self) -> None:
            closed.append(type(asyncio.get_running_loop()).__name__)

    registry.register("Client", Client)
    app = fastapi.FastAPI(lifespan=integration.lifespan(registry))

    @app.get("/")
    async def use(client: Annotated[Client, Depends(integration.leased(registry, Client))]) -> str:
        return type(client).__name__

    with uvicorn_server(app) as client:
        assert client.get("/").json() == "Client"
    assert len(closed) == 1


def test_keys_of_families(ws: Any, integration: Any) -> None:
    registry = make_registry(ws, max_cache_size=5, retry_after_seconds=8.0)

    def load(key: str) -> Any:
        if key == "broken":
            raise OSError("no such model: /secret/path")
        return One()

    models = registry.family("Model", load)
    app = fastapi.FastAPI(lifespan=integration.lifespan(registry, warm_up=[models.key("fr"), Two]))

    @app.get("/fr")
    def french(
        model: Annotated[One, Depends(integration.leased(registry, models.key("fr")))],
    ) -> str:
        return model.work("abc")

    @app.get("/broken")
    def broken(
        model: Annotated[One, Depends(integration.leased(registry, models.key("broken")))],
    ) -> str:
        return model.work("abc")

    with uvicorn_server(app) as client:
        assert list(models) == ["fr"]
        assert client.get("/fr").json() == "One abc"
        response = client.get("/broken")
        assert (response.status_code, response.headers["Retry-After"]) == (503, "8")
        assert response.json() == {"detail": "'Model[broken]' is not available"}


@pytest.mark.parametrize("close", [False, True])
def test_an_application_that_starts_twice(ws: Any, integration: Any, close: bool) -> None:
    """The error says what to do; with ``close=False`` it starts."""
    registry = ws.MethodRegistry({"Decoder": "json.JSONDecoder"})
    run = integration.lifespan(registry, warm_up=["Decoder"], close=close)

    async def start() -> None:
        async with run(fastapi.FastAPI()):
            assert registry.stats().builds == 1

    asyncio.run(start())
    if close:
        with pytest.raises(ws.ClosedError, match=r"lifespan\(close=False\)"):
            asyncio.run(start())
    else:
        asyncio.run(start())
        registry.close()
