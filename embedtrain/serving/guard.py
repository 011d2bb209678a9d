"""What every request passes before a route sees it: who asks, from where, and whether there is room."""

import asyncio
import hmac
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from ipaddress import ip_address
from secrets import token_hex
from time import monotonic
from urllib.parse import urlsplit

import orjson
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from embedtrain.serving.exchange import KEY, Exchange, Hall
from embedtrain.serving.metrics import Metrics
from embedtrain.serving.refusals import Refusal

logger = logging.getLogger(__name__)
ABORT = "embedtrain.abort"
"""Among a scope's extensions: closes the connection at once, whatever the client has not taken."""
OPEN = frozenset({"/health", "/livez", "/readyz"})
"""Routes that ask for no token, and answer while there is no room."""
ALWAYS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
GONE = 499
"""Counted where the client went away before its answer."""


@dataclass(frozen=True)
class Door:
    """Whom a server lets in.

    Args:
        token: What requests must carry as a bearer token; None lets all in.
        hosts: Names by which the server may be called; empty for any. A page of another site that let its own name
            lead here would call it by that name.
        open_paths: Routes that ask for no token.
    """

    token: bytes | None
    hosts: frozenset[str]
    open_paths: Collection[str] = OPEN

    def check(self, path: str, headers: dict[bytes, bytes], method: str) -> None:
        """Let a request in.

        Raises:
            Refusal: If it is not to come in.
        """
        host = _host_name(headers.get(b"host", b"").decode("latin-1"))
        if self.hosts and host not in self.hosts:
            raise Refusal("forbidden", "this server is not called by that name")
        origin = headers.get(b"origin")
        if origin is not None and method == "POST":
            said = urlsplit(origin.decode("latin-1")).netloc.lower()
            if said != headers.get(b"host", b"").decode("latin-1").lower():
                raise Refusal("forbidden", "pages of other sites may not ask this server")
        if self.token is None or path in self.open_paths:
            return
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        # Of equal length or not, right or not: the comparison takes as long.
        if kind.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self.token):
            raise Refusal("unauthorized", "the bearer token is missing or wrong")


class Guard:
    """An ASGI application around another one; each request is counted, and ends in time.

    Args:
        app: The routes.
        hall: How much is under way.
        door: Whom to let in.
        routes: The paths that there are; metrics call all others ``other``.
        is_stopping: Whether nothing new is begun.
    """

    def __init__(
        self,
        app: ASGIApp,
        hall: Hall,
        door: Door,
        routes: Collection[str],
        is_stopping: Callable[[], bool],
    ) -> None:
        self._app, self._hall, self._door = app, hall, door
        self._routes, self._is_stopping = frozenset(routes), is_stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, path = monotonic(), str(scope["path"])
        name = (b"x-request-id", token_hex(8).encode())
        fields = dict(scope["headers"])
        is_empty = (
            b"transfer-encoding" not in fields and fields.get(b"content-length", b"0") == b"0"
        )
        exchange = Exchange(self._hall, receive, send, [*ALWAYS, name], is_empty=is_empty)
        self._hall.requests += 1
        try:
            await self._answer(scope, exchange, path)
        finally:
            exchange.release()
            self._hall.requests -= 1
            metrics, route = self._hall.metrics, path if path in self._routes else "other"
            metrics.requests.add(route, str(GONE if exchange.is_left else exchange.status))
            metrics.request.observe(monotonic() - begun)

    async def _answer(self, scope: Scope, exchange: Exchange, path: str) -> None:
        try:
            async with asyncio.timeout(self._hall.settings.request_seconds):
                self._admit(scope, path)
                scope[KEY] = exchange
                await self._app(scope, exchange.receive, exchange.send)
        except Refusal as refusal:
            await self._refuse(scope, exchange, path, refusal)
        except TimeoutError:
            if exchange.status:
                _abort(scope)  # a client that does not take its answer
            else:
                expired = Refusal("expired", "the request took too long", retry_seconds=1)
                await self._refuse(scope, exchange, path, expired)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not exchange.is_left or task is None:
                raise
            task.uncancel()
        except Exception:
            if not exchange.is_left:
                logger.exception("a mistake of embedtrain, not of the request")

    def _admit(self, scope: Scope, path: str) -> None:
        self._door.check(path, dict(scope["headers"]), scope["method"])
        if path in OPEN:
            return
        if self._is_stopping():
            raise Refusal("unhealthy", "the server is stopping")
        if self._hall.requests > self._hall.settings.max_requests:
            raise Refusal("overloaded", "too many requests are under way", retry_seconds=1)

    async def _refuse(self, scope: Scope, exchange: Exchange, path: str, refusal: Refusal) -> None:
        try:
            response = refused(refusal, path, self._hall.metrics)
            await response(scope, exchange.receive, exchange.send)
        except TimeoutError:
            _abort(scope)


def refused(refusal: Refusal, path: str, metrics: Metrics) -> Response:
    """Return the answer to a request that is refused, and count it."""
    metrics.rejected.add(refusal.kind)
    body, status = orjson.dumps(refusal.content(path)), refusal.status(path)
    return Response(body, status, refusal.headers(), "application/json")


def _abort(scope: Scope) -> None:
    abort = scope.get("extensions", {}).get(ABORT)
    if abort is not None:
        abort()


def own_names(host: str) -> frozenset[str]:
    """Return the names by which a server that is bound to a host may be called: where others can reach it, any."""
    name = _host_name(host)
    if name == "localhost" or _is_loopback(name):
        return frozenset({"localhost", "127.0.0.1", "::1", name})
    return frozenset()


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _host_name(host: str) -> str:
    """Return the name in a ``Host`` header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name = host if host.count(":") > 1 else host.partition(":")[0]
    return name.lower()
