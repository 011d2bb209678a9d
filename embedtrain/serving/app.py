"""The routes of a server, put together."""

from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from embedtrain import __version__
from embedtrain.serving.desk import Desk
from embedtrain.serving.exchange import Hall
from embedtrain.serving.forms import EmbeddingsForm, Form, InputsForm, RerankForm
from embedtrain.serving.guard import OPEN, Door, Guard, refused
from embedtrain.serving.metrics import Metrics
from embedtrain.serving.page.page import Page
from embedtrain.serving.refusals import Refusal
from embedtrain.serving.routes.openai import OpenAI
from embedtrain.serving.routes.rerank import Rerank
from embedtrain.serving.routes.tei import Tei

METHOD_NOT_ALLOWED = 405


class Health:
    """Says how the server is."""

    def __init__(self, desk: Desk, hall: Hall) -> None:
        self.desk, self.hall = desk, hall

    async def health(self, request: Request) -> Response:
        """Answer 200 while models answer and requests are taken."""
        del request
        if self.desk.is_stopping or not self.desk.is_well:
            return JSONResponse({"status": "unavailable"}, 503)
        return JSONResponse({"status": "ok"})

    async def live(self, request: Request) -> Response:
        """Answer 200 while the process is of use: even one that is stopping has work to end."""
        del request
        return JSONResponse({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """Return the page for Prometheus."""
        del request
        metrics = self.desk.metrics
        metrics.waiting.set(self.desk.queue.tokens)
        metrics.running.set(self.hall.requests)
        metrics.held.set(self.hall.num_bytes)
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def build_app(desk: Desk, door: Door, page: Page | None) -> ASGIApp:
    """Return the application: routes behind their guard. ``page`` is what people see at ``/``, if anything."""
    hall = Hall(desk.settings, desk.metrics)
    app = FastAPI(
        title="embedtrain serve",
        version=__version__,
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    openai, tei, rerank, health = OpenAI(desk), Tei(desk), Rerank(desk), Health(desk, hall)
    posts: dict[str, tuple[Any, type[Form]]] = {
        "/v1/embeddings": (openai.embeddings, EmbeddingsForm),
        "/embeddings": (openai.embeddings, EmbeddingsForm),
        "/embed": (tei.embed, InputsForm),
        "/embed_all": (tei.embed_all, InputsForm),
        "/embed_sparse": (tei.embed_sparse, InputsForm),
        "/tokenize": (tei.tokenize, InputsForm),
        "/rerank": (rerank.rerank, RerankForm),
        "/v1/rerank": (rerank.rerank, RerankForm),
    }
    gets: dict[str, Any] = {
        "/v1/models": openai.models,
        "/info": tei.info,
        "/health": health.health,
        "/readyz": health.health,
        "/livez": health.live,
        "/metrics": health.metrics,
    }
    if page is not None:
        gets["/"] = page.show
        gets["/page/choices"] = page.choices
        app.add_api_route("/page/search", page.search, methods=["POST"], include_in_schema=False)
    for path, (endpoint, form) in posts.items():
        app.add_api_route(path, endpoint, methods=["POST"], openapi_extra=_described(form))
    for path, endpoint in gets.items():
        app.add_api_route(path, endpoint, methods=["GET"], response_class=Response)
    _answer_errors(app, desk.metrics)
    routes = {*posts, *gets, "/page/search", "/openapi.json"}
    return Guard(app, hall, door, routes, lambda: desk.is_stopping)


def open_paths(*, metrics: bool, page: bool) -> frozenset[str]:
    """Return the routes that ask for no token: those of health, and ``/metrics`` where it is to be open.

    The page itself holds nothing; what it shows it asks for with the token that its reader types.
    """
    return OPEN | ({"/metrics"} if metrics else set()) | ({"/"} if page else set())


def _described(form: type[Form]) -> dict[str, Any]:
    content = {"application/json": {"schema": form.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


def _answer_errors(app: FastAPI, metrics: Metrics) -> None:
    """Let the app answer what routes refuse, what there is no route for, and mistakes, which the guard logs."""

    async def refuse(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            known = error.status_code == METHOD_NOT_ALLOWED
            error = (
                Refusal("method", "this route does not take that method")
                if known
                else Refusal("unknown", "there is no such route")
            )
        if not isinstance(error, Refusal):
            error = Refusal("backend", "the server made a mistake; its log says which")
        return refused(error, request.url.path, metrics)

    for kind in (Refusal, HTTPException, Exception):
        app.add_exception_handler(kind, refuse)
