"""One request and its answer on their way: counted in bytes and seconds, and given up when the client has gone."""

import asyncio

from starlette.requests import Request
from starlette.types import Message, Receive, Send

from embedtrain.serving.metrics import Metrics
from embedtrain.serving.refusals import Refusal
from embedtrain.serving.settings import ServeSettings

PIECE = 65_536
"""Bytes of an answer that are handed over at once; the rest waits, and counts, until the client takes them."""
KEY = "embedtrain.exchange"


class Hall:
    """How many requests and bytes are under way in all."""

    def __init__(self, settings: ServeSettings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.requests = self.num_bytes = 0


class Exchange:
    """A request: what it holds, and messages in and out under limits.

    Args:
        hall: Where it is counted.
        receive: The server's; gives pieces of the body.
        send: The server's.
        headers: Added to the answer.
        is_empty: Whether the request has no body.
    """

    def __init__(
        self,
        hall: Hall,
        receive: Receive,
        send: Send,
        headers: list[tuple[bytes, bytes]],
        *,
        is_empty: bool = False,
    ) -> None:
        self._hall, self._receive, self._send, self._headers = hall, receive, send, headers
        self._held = self._body = 0
        self._deadline = asyncio.get_running_loop().time() + hall.settings.body_seconds
        self.is_read = is_empty
        """Whether the whole body has arrived."""
        self.status = 0
        """Of the answer; 0 before it begins."""
        self.is_done = False
        self.is_left = False
        """Whether the client went away before its answer."""
        self._watcher: asyncio.Task[None] | None = None

    def hold(self, num_bytes: int) -> None:
        """Count bytes that this request keeps until its answer has gone.

        Raises:
            Refusal: If all requests together would hold too much.
        """
        most = self._hall.settings.max_held_bytes
        if self._held + num_bytes > most:
            raise Refusal("too_large", "the answer would be too large; send fewer texts")
        if self._hall.num_bytes + num_bytes > most:
            raise Refusal("overloaded", "too many requests are under way", retry_seconds=1)
        self._held += num_bytes
        self._hall.num_bytes += num_bytes

    async def receive(self) -> Message:
        """Return the next piece of the body.

        Raises:
            Refusal: If the body is too large or comes too slowly.
        """
        settings, now = self._hall.settings, asyncio.get_running_loop().time()
        left = min(settings.read_seconds, self._deadline - now)
        try:
            async with asyncio.timeout(max(left, 0)):
                message = await self._receive()
        except TimeoutError:
            raise Refusal("slow", "the body did not arrive in time") from None
        if message["type"] == "http.disconnect":
            self.is_left = not self.is_done
        else:
            size = len(message.get("body", b""))
            self._body += size
            if self._body > settings.max_body_bytes:
                problem = f"the body has more than {settings.max_body_bytes} bytes"
                raise Refusal("too_large", problem)
            self.hold(size)
            self.is_read = not message.get("more_body", False)
            task = asyncio.current_task()
            if self.is_read and self._watcher is None and task is not None:
                self._watcher = asyncio.create_task(self._watch(task))
        return message

    async def send(self, message: Message) -> None:
        """Pass the answer on, piece by piece, as fast as the client takes it."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), *self._headers]
            if not self.is_read:  # the server would go on reading what nobody wants
                headers.append((b"connection", b"close"))
            await self._send({**message, "headers": headers})
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        starts = range(0, len(body), PIECE) or range(1)
        for start in starts:
            is_last = start == starts[-1] and not more
            self.is_done = is_last
            piece = {"body": body[start : start + PIECE], "more_body": not is_last}
            async with asyncio.timeout(self._hall.settings.read_seconds):
                await self._send({"type": "http.response.body", **piece})

    def release(self) -> None:
        """Count its bytes no longer, and look for the client no longer."""
        if self._watcher is not None:
            self._watcher.cancel()
        self._hall.num_bytes -= self._held
        self._held = 0

    async def _watch(self, task: "asyncio.Task[object]") -> None:
        """Cancel a task when the client goes away before its answer."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.is_done:
            self.is_left = True
            task.cancel()


def exchange_of(request: Request) -> Exchange:
    """Return the exchange that a request belongs to."""
    found: Exchange = request.scope[KEY]
    return found
