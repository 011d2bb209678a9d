"""Keys, addresses and refusals: what is sent, what is never shown, and what the line says is to be done."""

from unittest.mock import Mock

import pytest
from completions_stub import CompletionsStub, odds

from embedtrain.encoding.language import endpoint, posting
from embedtrain.encoding.pair_scorers import open_pair_scorer
from embedtrain.errors import UserError
from embedtrain.redaction import redact

PAIRS = [("cat?", "a" * size) for size in (1, 5, 3)]
SECRET = "sesame-open-1234"


def test_a_key_is_sent_without_the_newline_behind_it(monkeypatch):
    monkeypatch.setenv(endpoint.KEY, f"{SECRET}\n")
    with CompletionsStub(odds) as stub:
        open_pair_scorer(stub.url, kind="yes_no").logits(PAIRS)
    assert set(stub.keys) == {f"Bearer {SECRET}"}
    assert redact(f"no {SECRET}!") == "no ***!"


@pytest.mark.parametrize("key", [f"{SECRET}\nnext", f"{SECRET}\x7f", f"{SECRET}\u2019"])
def test_a_key_that_cannot_be_sent_is_refused_unshown(key, monkeypatch):
    monkeypatch.setenv(endpoint.KEY, key)
    with CompletionsStub(odds) as stub:
        with pytest.raises(
            UserError, match=f"{endpoint.KEY} holds characters that cannot"
        ) as caught:
            open_pair_scorer(stub.url, kind="yes_no")
        assert stub.asked == []
    assert SECRET not in str(caught.value)


def test_an_address_that_nobody_listens_at_is_a_line(monkeypatch):
    with CompletionsStub(odds) as stub:
        url = stub.url
    with pytest.raises(UserError, match="does not answer; got 'ConnectError"):
        open_pair_scorer(url, kind="yes_no")


def test_the_cure_of_a_refusal_says_what_is_to_be_done(monkeypatch):
    with CompletionsStub(odds) as stub:
        stub.faults += [401]
        with pytest.raises(UserError, match=r"HTTP 401.*Set EMBEDTRAIN_API_KEY to a key"):
            open_pair_scorer(stub.url, kind="yes_no").logits(PAIRS[:1])
        # A server without a list of its models, or an address that lacks its /v1.
        code = Mock(side_effect=lambda *_: posting.Outcome("HTTP 404: no", 404))
        monkeypatch.setattr(posting.Post, "send", code)
        with pytest.raises(UserError, match=r"HTTP 404.*Add #NAME of the model"):
            open_pair_scorer(stub.url, kind="yes_no")


@pytest.mark.parametrize("option", ["key", "api-key", "api_key", "version"])
def test_an_address_with_a_query_part_is_refused_and_not_shown(option):
    url = f"http://127.0.0.1:9/v1?{option}={SECRET}#toy"
    with pytest.raises(UserError, match="has a query part behind it") as caught:
        open_pair_scorer(url, kind="yes_no")
    assert SECRET not in str(caught.value)
    if option != "version":
        assert SECRET not in redact(url)


@pytest.mark.parametrize("code", [401, 200])
def test_a_key_across_the_cut_of_what_a_server_said_is_not_shown(code, monkeypatch):
    monkeypatch.setenv(endpoint.KEY, SECRET)
    for size in (70, 190):
        with CompletionsStub(odds) as stub:
            body = b"x" * size + SECRET.encode()
            stub.said = body
            stub.faults += [code if code != 200 else body] * 6
            with pytest.raises(UserError) as caught:
                open_pair_scorer(stub.url, kind="yes_no").logits(PAIRS[:1])
        assert SECRET[:6] not in f"{caught.value} {caught.value.reason}"
