"""Requests that no client should send, and clients that behave as none should."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random

from benchmark_serve_clients import exchange, request

AT_ONCE = 64
PATIENCE = 40.0
"""Seconds after which a client takes a server for hung: longer than it may wait for a body."""
V1 = "/v1/embeddings"
Hostile = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]]


def bad_requests() -> dict[str, bytes]:
    """Return requests that are whole, and wrong."""
    text = "word " * 400_000
    bodies: dict[str, object] = {
        "number": {"input": 3},
        "null": {"input": None},
        "nothing": {},
        "empty list": {"input": []},
        "empty query": {"input": [""], "input_type": "query"},
        "empty lists": {"input": [[]]},
        "mixed": {"input": ["a", 1]},
        "too many": {"input": ["a"] * 2049},
        "negative id": {"input": [-1]},
        "huge id": {"input": [2**63]},
        "huger id": {"input": [10**40]},
        "bool id": {"input": [True]},
        "no dimensions": {"input": "a", "dimensions": 0},
        "negative dimensions": {"input": "a", "dimensions": -1},
        "many dimensions": {"input": "a", "dimensions": 10**9},
        "float dimensions": {"input": "a", "dimensions": 1.5},
        "unknown fields": {"input": "a", "__proto__": {"a": 1}, "user": "x" * 10_000},
        "unknown model": {"input": "a", "model": "../../etc/passwd"},
        "unknown side": {"input": "a", "input_type": ["query"]},
        "unknown instruction": {"input": "a", "instruction": "x" * 10_000},
        "one word": {"input": "a" * 1_000_000},
        "huge": {"input": text},
        "marks": {"input": "\x00\u202e\ufeff[CLS]</s><|endoftext|>"},
        "whole": [1, 2, 3],
    }
    found = {name: request("POST", V1, json.dumps(body).encode()) for name, body in bodies.items()}
    raw = {
        "no json": b"{",
        "nan": b'{"input": NaN}',
        "half a pair": b'{"input": "\\ud800"}',
        "not utf-8": b'{"input": "\xff\xfe"}',
        "deep": b'{"input":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        "no body": b"",
    }
    found |= {name: request("POST", V1, body) for name, body in raw.items()}
    for method in ("HEAD", "OPTIONS", "TRACE", "DELETE", "PUT"):
        found[method] = request(method, V1)
    for path in ("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/" + "a" * 4000, "/%00"):
        found[path[:20]] = request("GET", path)
    found["rerank"] = request("POST", "/rerank", b'{"query": "a", "documents": [{"text": 1}]}')
    found["sparse"] = request("POST", "/embed_sparse", b'{"inputs": "a"}')
    found["page"] = request("POST", "/page/search", b'{"query": "a", "sides": ["x"]}')
    found["other site"] = request("POST", V1, b'{"input": "a"}', Origin="http://evil.example")
    return found


async def huge_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """Send a head of 80 KB."""
    writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: " + b"a" * 80_000)
    await writer.drain()
    return int((await reader.readline()).split(b" ")[1])


async def no_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """Send what is no request."""
    writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n")
    return int((await reader.readline()).split(b" ")[1])


async def endless_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """Send chunk after chunk, beyond any limit."""
    writer.write(b"POST /embed HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(64):
        writer.write(b"10000\r\n" + b"a" * 65_536 + b"\r\n")
        with suppress(ConnectionError):
            await writer.drain()
    return int((await reader.readline()).split(b" ")[1])


async def lying_length(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Promise more than comes, and go."""
    writer.write(b"POST /embed HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n{")
    await writer.drain()


async def gone(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ask for much and go before the answer."""
    body = json.dumps({"input": [f"a long way to go {row} " * 20 for row in range(200)]}).encode()
    writer.write(request("POST", V1, body))
    await writer.drain()
    await asyncio.sleep(0.01)


async def idle(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    """Say nothing for a while."""
    await asyncio.sleep(0.5)


async def slow_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """Send a byte now and then, until the server has enough of it."""
    writer.write(b"POST /embed HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(int(PATIENCE)):
        writer.write(b"a")
        with suppress(TimeoutError):
            return int((await asyncio.wait_for(reader.readline(), 1)).split(b" ")[1])
    return 0


async def slow_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a line of the head now and then, until the server has enough of it."""
    writer.write(b"GET / HTTP/1.1\r\n")
    for row in range(int(PATIENCE)):
        writer.write(f"X-{row}: a\r\n".encode())
        await asyncio.sleep(1)
        if reader.at_eof() or writer.is_closing():
            return


QUICK = (huge_head, no_http, endless_chunks, lying_length, gone)
SLOW = (idle, slow_body, slow_head)


async def run_hostile(
    port: int, number: int, *, seed: int = 0, slow_share: float = 0.01
) -> Counter[str]:
    """Send so many hostile requests, 64 at once; return how often each status came.

    ``closed`` counts connections that were closed without one, ``left`` those that the client left.

    Raises:
        TimeoutError: If the server neither answers nor closes a connection.
    """
    draw, whole = Random(seed), list(bad_requests().values())
    counts: Counter[str] = Counter()
    room = asyncio.Semaphore(AT_ONCE)

    def choose() -> Hostile:
        drawn = draw.random()
        if drawn < slow_share:
            return draw.choice(SLOW)
        if drawn < 0.15:
            return draw.choice(QUICK)
        sent = draw.choice(whole)

        async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
            return (await exchange(reader, writer, sent))[0]

        return send

    async def one(hostile: Hostile) -> None:
        async with room:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**26)
            try:
                status = await asyncio.wait_for(hostile(reader, writer), PATIENCE + 20)
                counts["left" if status is None else str(status)] += 1
            except (ConnectionError, asyncio.IncompleteReadError, IndexError):
                counts["closed"] += 1
            finally:
                writer.transport.abort()

    await asyncio.gather(*(one(choose()) for _ in range(number)))
    return counts
