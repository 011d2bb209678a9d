"""The server itself: a port, connections that must be quick about their heads, and an end in good order."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from embedtrain.errors import StoppedAtOnce, UserError
from embedtrain.serving.desk import Desk
from embedtrain.serving.guard import ABORT
from embedtrain.serving.settings import ServeSettings
from embedtrain.stopping import deferring

MAX_HEAD_BYTES = 65_536
"""Of the head of a request: its address and headers."""


def bound_socket(host: str, port: int) -> socket.socket:
    """Take a port; 0 takes a free one.

    Raises:
        UserError: If there is no such host, or the port is taken or may not be.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        cure = "Name an address of this machine"
        raise UserError("--host", "cannot be found", got=host, cure=cure) from error
    taken = socket.socket(family, kind, protocol)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
    except OSError as error:
        taken.close()
        problem = f"cannot be used: {error.strerror or error}"
        raise UserError("--port", problem, got=f"{host}:{port}", cure="Choose another") from error
    return taken


def address_of(taken: socket.socket) -> str:
    """Return the address of a port that was taken."""
    host, port = taken.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(
    app: ASGIApp, desk: Desk, taken: socket.socket, ready: Callable[[], None] = lambda: None
) -> None:
    """Answer requests until a signal asks for an end; then end what is under way. A second signal ends it at once.

    ``ready`` is called once requests are answered.
    """
    # A signal is how a server ends: no failure.
    with suppress(StoppedAtOnce):
        asyncio.run(_serve(app, desk, taken, ready))


async def _serve(app: ASGIApp, desk: Desk, taken: socket.socket, ready: Callable[[], None]) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    server = _Server(_configured(app, desk.settings))
    with deferring(lambda _: _call(loop, stop.set)):
        desk.begin()
        running = asyncio.create_task(server.serve([taken]))
        while not server.started and not running.done():
            await asyncio.sleep(0.005)
        ready()
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
        await desk.finish()
        server.should_exit = True
        await running


def _call(loop: asyncio.AbstractEventLoop, what: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop has ended already
        loop.call_soon_threadsafe(what)


def _configured(app: ASGIApp, settings: ServeSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_protocol(settings),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=2,
    )


class _Server(uvicorn.Server):
    """A server that leaves signals to :mod:`embedtrain.stopping`."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing about signals."""
        yield


class Connection(HttpToolsProtocol):
    """A connection whose heads must come whole, in time and not without end: uvicorn would wait for ever."""

    head_seconds = 10.0
    _timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a head."""
        super().connection_made(transport)
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing."""
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes before a head is whole."""
        super().data_received(data)
        if self._timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("The head of the request is too large.")

    def on_message_begin(self) -> None:
        """Expect the rest of a head."""
        super().on_message_begin()
        self._begin_head()
        self.scope["extensions"] = {ABORT: self.transport.abort}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        """Leave the body to the application."""
        self._end_head()
        super().on_headers_complete()

    def _begin_head(self) -> None:
        self._end_head()
        self._timer = self.loop.call_later(self.head_seconds, self.transport.abort)

    def _end_head(self) -> None:
        self._head_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _protocol(settings: ServeSettings) -> type[asyncio.Protocol]:
    return type("Connection", (Connection,), {"head_seconds": settings.head_seconds})
