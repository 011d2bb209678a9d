"""A signal lets a server end what it has begun; a port that is taken is a line."""

import asyncio
import os
import signal
import socket
import time

import pytest
from benchmark_serve_clients import embeddings_request, exchange
from serve_toys import running

from embedtrain.errors import UserError
from embedtrain.serving.server import bound_socket
from embedtrain.workflows.serve import Serving, serve


def test_at_a_signal_all_that_is_under_way_is_answered_and_the_port_is_free(prompted):
    signalled = []
    with running([prompted]) as server:

        async def client(row):
            sent = embeddings_request([f"cat {row} {word}" for word in range(20)], "float")
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=2**24)
            asked = asyncio.create_task(exchange(reader, writer, sent))
            status, _ = await asked
            if not signalled:  # the others' are under way
                signalled.append(row)
                os.kill(server.process, signal.SIGTERM)
            writer.close()
            return status

        async def run():
            return await asyncio.gather(*(client(row) for row in range(200)))

        statuses = asyncio.run(asyncio.wait_for(run(), 60))
        assert set(statuses) <= {200, 503}
        assert 200 in statuses
        assert server.ended() == 0
    bound_socket("127.0.0.1", server.port).close()


def test_a_second_signal_ends_it_at_once(prompted):
    patient = {"grace_seconds": 60.0, "read_seconds": 60.0, "body_seconds": 60.0}
    with (
        running([prompted], **patient) as server,
        socket.create_connection(("127.0.0.1", server.port)) as one,
    ):
        # A request that is under way for as long as its client sends nothing.
        one.sendall(b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
        time.sleep(0.1)
        begun = time.monotonic()
        os.kill(server.process, signal.SIGTERM)
        time.sleep(0.7)
        assert server.end() in (0, 143)
        assert time.monotonic() - begun < 20


def test_a_port_that_is_taken_is_a_line(prompted):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            UserError, match=r"--port cannot be used: .*in use; got .*Choose another"
        ):
            serve(Serving([prompted], port=port), print)


def test_others_are_not_let_in_without_a_token(prompted, monkeypatch):
    monkeypatch.delenv("EMBEDTRAIN_SERVE_TOKEN", raising=False)
    with pytest.raises(UserError, match="lets others ask without a token"):
        serve(Serving([prompted], host="0.0.0.0"), print)


def test_a_missing_package_is_a_line(prompted, monkeypatch):
    monkeypatch.setattr("embedtrain.workflows.serve.PACKAGES", ("no_such_package",))
    with pytest.raises(UserError, match=r"pip install \"embedtrain\[serve\]\""):
        serve(Serving([prompted]), print)


def test_two_models_of_one_name_are_a_line(prompted):
    with pytest.raises(UserError, match="would be that of two models"):
        serve(Serving([prompted, prompted], port=0), print)


def test_all_can_be_tried_without_serving(prompted, cross_encoder, capsys):
    serve(Serving([prompted, cross_encoder], names=("a", "b"), port=0, check=True), print)
    assert "a (dense), b (cross_encoder)" in capsys.readouterr().out
