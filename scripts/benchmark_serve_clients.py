"""Clients of a server that cost little themselves: requests are bytes, and answers are taken as bytes."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Load:
    """What clients saw: a time for each request, and all of it."""

    seconds: float
    latencies: np.ndarray
    statuses: dict[int, int]

    def percentile(self, share: float) -> float:
        """Return the milliseconds that so many percent of requests do not exceed."""
        return float(1000 * np.percentile(self.latencies, share))


def embeddings_request(texts: Sequence[str], encoding_format: str, **more: object) -> bytes:
    """Return the bytes of a request for vectors."""
    body = {"input": list(texts), "encoding_format": encoding_format, **more}
    return request("POST", "/v1/embeddings", json.dumps(body).encode())


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """Return the bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes
) -> tuple[int, bytes]:
    """Send a request and return the status and the body of its answer."""
    writer.write(sent)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split(b" ", 2)[1])
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
    if sent.startswith(b"HEAD "):  # told the length of what does not come
        length = 0
    return status, await reader.readexactly(length)


async def once(port: int, sent: bytes) -> tuple[int, bytes]:
    """Send one request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**26)
    try:
        return await exchange(reader, writer, sent)
    finally:
        writer.close()


async def run_clients(port: int, requests: Sequence[bytes], clients: int) -> Load:
    """Let so many clients send requests, each the next one when it has its answer."""
    waiting = list(reversed(requests))
    latencies: list[float] = []
    statuses: dict[int, int] = {}

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**26)
        while waiting:
            sent, begun = waiting.pop(), time.perf_counter()
            status, _ = await exchange(reader, writer, sent)
            latencies.append(time.perf_counter() - begun)
            statuses[status] = statuses.get(status, 0) + 1
        writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return Load(time.perf_counter() - begun, np.array(latencies), statuses)
