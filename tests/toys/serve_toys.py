"""A server in a fork of the tests, and plain ways to ask it."""

import asyncio
import http.client
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from places import SCRIPTS

sys.path.append(str(SCRIPTS))
from benchmark_serve_clients import once


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
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
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
        line = said.readline()
    assert line, "the server did not begin"
    server = Running(int(line.rpartition(":")[2]), process, token)
    guard = threading.Timer(120, os.kill, (process, signal.SIGKILL))
    guard.start()
    try:
        yield server
    finally:
        guard.cancel()
        server.end()


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
