"""A server in a fork of the tests, and plain ways to ask it."""

import asyncio
import http.client
import json
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from places import SCRIPTS

sys.path.append(str(SCRIPTS))
from benchmark_serve_clients import once

PATIENCE = 120
"""Seconds in which a server begins, and in which it ends: one that hangs is killed."""


class Running:
    """A server that runs: its port, its process, and a client."""

    def __init__(self, port: int, process: int, token: str | None) -> None:
        self.port, self.process, self.token = port, process, token
        self.code: int | None = None

    def ask(self, path, content=None, *, method=None, raw=None, **headers):
        """Return the status, the headers and the content of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        body = raw if content is None else json.dumps(content).encode()
        if self.token and "Authorization" not in headers:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, headers)
            answer = connection.getresponse()
            said = answer.read()
        finally:
            connection.close()
        kind = answer.headers.get("content-type", "")
        return answer.status, answer.headers, json.loads(said) if "json" in kind else said.decode()

    def metric(self, line):
        """Return the number behind the beginning of a line of /metrics; 0 where there is none."""
        _, _, said = self.ask("/metrics")
        found = [one for one in said.splitlines() if one.startswith(f"{line} ")]
        return float(found[0].rpartition(" ")[2]) if found else 0.0

    def end(self, number=signal.SIGTERM):
        """Send a signal, unless it has ended, and return the exit code."""
        if self.code is None:
            os.kill(self.process, number)
        return self.ended()

    def ended(self):
        """Wait for the end and return the exit code.

        It lives as long as its tests need it, however far apart they run: only its end has a limit, and each answer.
        """
        deadline = time.monotonic() + PATIENCE
        while self.code is None:
            process, status = os.waitpid(self.process, os.WNOHANG)
            if process:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                os.kill(self.process, signal.SIGKILL)
            time.sleep(0.01)
        return self.code

    def once(self, sent):
        """Send bytes on a connection of its own; return the status and the body."""
        return asyncio.run(asyncio.wait_for(once(self.port, sent), 30))


@contextmanager
def running(models, **settings) -> Iterator[Running]:
    """Serve models in a fork, with settings of ``Serving`` and of ``ServeSettings``, until the block ends."""
    from embedtrain.serving.settings import ServeSettings
    from embedtrain.workflows.serve import Serving

    limits = {
        name: settings.pop(name) for name in list(settings) if name in ServeSettings.model_fields
    }
    token = settings.pop("token", None)
    wish = Serving(models, port=0, settings=ServeSettings(**limits), **settings)
    reading, writing = os.pipe()
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        os.close(reading)
        _serve_and_exit(wish, writing, token)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as said:
        begun = select.select([said], [], [], PATIENCE)[0]
        line = said.readline() if begun else ""
    server = Running(int(line.rpartition(":")[2] or 0), process, token)
    try:
        assert line, "the server did not begin"
        yield server
    finally:
        server.end(signal.SIGTERM if line else signal.SIGKILL)


def _serve_and_exit(wish, writing, token):
    import warnings

    from embedtrain.stopping import listening
    from embedtrain.workflows.serve import TOKEN, serve

    code = 1
    try:
        warnings.simplefilter("ignore")
        logging.basicConfig(force=True)  # pytest's handlers would keep it to themselves
        if token:
            os.environ[TOKEN] = token
        with listening(owns_process=True):
            serve(wish, lambda line: os.write(writing, f"{line}\n".encode()))
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def corpus(folder: Path, texts) -> Path:
    """Write documents that a page searches."""
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": one}) + "\n" for one in texts), encoding="utf-8")
    return path
