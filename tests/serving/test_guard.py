"""Who may ask, from where, how much at once and how slowly; and that a server bears those who do not care."""

import asyncio
import json
import socket
import time
from contextlib import suppress

import pytest
from benchmark_serve_clients import embeddings_request, run_clients
from benchmark_serve_hostile import bad_requests, run_hostile
from serve_toys import running

from embedtrain.errors import UserError
from embedtrain.serving.guard import own_names
from embedtrain.workflows.serve import TOKEN, read_token

V1 = "/v1/embeddings"
KEY = "letters-and-digits-1"


@pytest.fixture(scope="module")
def strict(prompted):
    """A server that asks for a token and has little patience: as much as clients need on a machine that is busy."""
    quick = {"read_seconds": 1.2, "body_seconds": 2.4, "head_seconds": 1.5}
    small = {"max_body_bytes": 20_000, "max_held_bytes": 200_000, "max_request_tokens": 2_000}
    with running([prompted], names=("toy",), token=KEY, **quick, **small) as found:
        yield found


def connected(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def heard(one):
    """Return all that a server says until it closes; what it has not read by then makes that a reset."""
    said = b""
    with suppress(ConnectionResetError):
        while piece := one.recv(4096):
            said += piece
    return said


def test_routes_ask_for_the_token_but_for_health_and_the_empty_page(strict):
    for path in ("/v1/models", "/metrics", "/page/choices", "/openapi.json", "/nothing"):
        for given in ("Bearer wrong", "Bearer", f"Basic {KEY}", "Bearer \xe4", f"Bearer {KEY}x"):
            status, headers, _ = strict.ask(path, Authorization=given)
            assert status == 401, (path, given)
            assert headers["www-authenticate"] == "Bearer"
        assert strict.ask(path)[0] == (404 if path == "/nothing" else 200)
    for path in ("/health", "/livez", "/readyz", "/"):
        assert strict.ask(path, Authorization="")[0] == 200


def test_pages_of_other_sites_get_nothing(server):
    own = f"http://127.0.0.1:{server.port}"
    asked = {"input": "a"}
    assert server.ask(V1, asked, Origin="http://evil.example")[0] == 403
    assert server.ask(V1, asked, Origin="null")[0] == 403
    assert server.ask(V1, asked, Origin=own)[0] == 200
    assert server.ask("/health", Host="evil.example")[0] == 403
    assert server.ask("/health", Host="localhost:1")[0] == 200


def test_only_a_server_of_this_machine_knows_its_names():
    assert own_names("127.0.0.1") >= {"localhost", "127.0.0.1", "::1"}
    assert own_names("0.0.0.0") == own_names("example.org") == frozenset()


def test_a_token_comes_from_a_file_or_the_environment_and_is_one_word(tmp_path, monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)
    assert read_token(None) is None
    monkeypatch.setenv(TOKEN, "abc")
    assert read_token(None) == b"abc"
    path = tmp_path / "token"
    path.write_text("def\n")
    assert read_token(path) == b"def"
    for wrong in ("", "a b", "\u00e4", "a\x07"):
        path.write_text(wrong)
        with pytest.raises(UserError, match="is no token") as told:
            read_token(path)
        assert not wrong or wrong not in str(told.value)


def test_a_body_that_is_too_large_is_not_read_to_its_end(strict):
    assert strict.ask(V1, {"input": "a" * 30_000})[0] == 413
    with connected(strict) as one:
        head = f"POST /embed HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
        one.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        with suppress(ConnectionError):  # closed before the last piece
            for _ in range(6):
                one.sendall(b"1000\r\n" + b"a" * 4096 + b"\r\n")
        answer, _, body = heard(one).partition(b"\r\n\r\n")
    assert b" 413 " in answer.splitlines()[0]
    assert json.loads(body)["error_type"] == "too_large", "and closed"


def test_what_would_hold_too_much_memory_or_work_is_refused(strict):
    status, _, said = strict.ask(V1, {"input": ["a"] * 500})
    assert (status, said["error"]["code"]) == (413, "too_large")
    assert strict.ask(V1, {"input": ["red cat " * 11] * 90})[0] == 413
    assert strict.ask(V1, {"input": ["a"] * 50})[0] == 200
    assert strict.metric("embedtrain_held_bytes") == 0


def test_slow_heads_and_bodies_are_ended(strict):
    begun = time.monotonic()
    with connected(strict) as silent, connected(strict) as head, connected(strict) as body:
        head.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        start = f"POST /embed HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
        body.sendall(start.encode() + b"Content-Length: 100\r\n\r\n{")
        assert b" 408 " in heard(body).splitlines()[0]
        assert heard(silent) == heard(head) == b""
    assert time.monotonic() - begun < 10


def test_a_drip_of_bytes_is_ended_as_well(strict):
    with connected(strict) as one:
        start = f"POST /embed HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
        one.sendall(start.encode() + b"Content-Length: 100\r\n\r\n")
        one.settimeout(0.2)
        said = b""
        for _ in range(50):
            one.sendall(b"a")
            with suppress(TimeoutError):
                said = one.recv(4096)
                break
    assert b" 408 " in said, "it was read for ever"


def test_a_head_without_end_is_ended(strict):
    with connected(strict) as one:
        with suppress(ConnectionError):  # closed before the last byte
            one.sendall(b"GET / HTTP/1.1\r\nX-A: " + b"a" * 80_000)
        assert b" 400 " in heard(one).splitlines()[0]


def test_each_hostile_request_has_its_status(server):
    for name, sent in bad_requests().items():
        if name in ("huge", "one word", "unknown fields", "marks"):
            continue
        status, _ = server.once(sent)
        assert 400 <= status < 500, name
    assert server.once(bad_requests()["marks"])[0] == 200
    assert server.once(bad_requests()["one word"])[0] == 200


@pytest.mark.parametrize("number", [32, pytest.param(120, marks=pytest.mark.prove)])
def test_hostile_clients_leave_the_server_as_it_was(number, server):
    counts = asyncio.run(run_hostile(server.port, number, slow_share=0.0))
    assert "500" not in counts
    assert counts["200"] < counts["400"]
    assert server.ask("/health")[0] == 200
    assert server.ask(V1, {"input": "the red cat"})[0] == 200
    calm = {"queue_tokens": 0, "held_bytes": 0, "requests_running": 1}
    deadline = time.monotonic() + 20
    while (left := {name: server.metric(f"embedtrain_{name}") for name in calm}) != calm:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_many_clients_get_each_their_own_vectors(server, encoder, sentences):
    from embedtrain.encoding.texts import encode_texts

    requests = [embeddings_request([text], "float") for text in sentences[:64]]
    load = asyncio.run(asyncio.wait_for(run_clients(server.port, requests, 64), 60))
    assert load.statuses == {200: 64}

    async def answers():
        from benchmark_serve_clients import once

        return await asyncio.gather(*(once(server.port, one) for one in requests))

    told = asyncio.run(asyncio.wait_for(answers(), 60))
    found = [json.loads(body)["data"][0]["embedding"] for _, body in told]
    expected = encode_texts(encoder, sentences[:64], "document")
    assert abs(expected - found).max() < 1e-6
