"""Servers that are started for the comparison, on a free port of this machine."""

import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import httpx

from embedtrain.verification.asked import AskedReader
from embedtrain.verification.process import Program, program
from embedtrain.verification.programmed import START_SECONDS
from embedtrain.verification.values import Bound, Reader

LISTENING = re.compile(r"Listening on (\S+)")
PAUSE_SECONDS = 0.2


@contextmanager
def serve(folder: str, python: str, bound: Bound) -> Iterator[Reader]:
    """Start ``embedtrain serve``.

    Raises:
        ReaderFailed: If it does not begin in time.
    """
    command = [python, "-m", "embedtrain", "serve", folder, "--port", "0", "--no-page", "--name", "model"]  # fmt: skip
    with program("serve", command) as running:
        address = _listening(running)
        reader = AskedReader(
            "serve", f"{address}/v1", bound, model="model", input_types=True, memory=running.memory
        )
        with closing(reader):
            yield reader


@contextmanager
def infinity(folder: str, where: str, bound: Bound) -> Iterator[Reader]:
    """Start Infinity in the Python that has it, or ask one that runs at an address.

    Its defaults listen to the whole network, send telemetry and run code of repositories, so each is named here.

    Raises:
        ReaderFailed: If it does not begin in time.
    """
    if "://" in where:
        address, _, model = where.partition("#")
        with closing(AskedReader("infinity", address, Bound(1e-3), model=model)) as reader:
            yield reader
        return
    port = _free_port()
    command = [
        where, "-m", "infinity_emb.cli", "v2", "--model-id", folder, "--served-model-name", "model", "--engine", "torch",
        "--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port), "--url-prefix", "/v1",
        "--no-bettertransformer", "--no-model-warmup", "--no-trust-remote-code",
    ]  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    with program("infinity", command) as running:
        _wait_for(running, f"{address}/health")
        reader = AskedReader(
            "infinity", f"{address}/v1", bound, model="model", memory=running.memory
        )
        with closing(reader):
            yield reader


def _listening(running: Program) -> str:
    """Return the address that a server says it listens on."""
    last = time.monotonic() + START_SECONDS
    while True:
        found = LISTENING.search(running.hear(max(0.1, last - time.monotonic())))
        if found:
            return found[1]


def _wait_for(running: Program, address: str) -> None:
    last = time.monotonic() + START_SECONDS
    while time.monotonic() < last:
        if not running.is_running:
            running.hear(1.0)
        with suppress(httpx.HTTPError):
            if httpx.get(address, timeout=5, trust_env=False).is_success:
                return
        time.sleep(PAUSE_SECONDS)
    raise running.failure(f"did not answer within {START_SECONDS:.0f} s")


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
