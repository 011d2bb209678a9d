"""Addresses of collections: their parts, and secrets that are shown nowhere."""

import pytest
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.engines.address import parse_address
from embedtrain.engines.open import ENGINES
from embedtrain.errors import UserError
from embedtrain.redaction import redact


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("postgresql://me@localhost/db?table=t&password=s3cret", "holds a secret; got 'password'"),
        ("postgresql://me@localhost/db?sslpassword=s3cret", "holds a secret; got 'sslpassword'"),
        ("qdrant://localhost:6333/docs?api_key=s3cret", "holds a secret; got 'api_key'"),
        ("postgresql://me:p@s/s3cret@localhost/db", "has a / or a second @"),
        ("postgresql://me:s3cret/x@localhost/db", "has a / or a second @"),
        ("postgresql://me:p@s3cret@localhost/db", "has a / or a second @"),
        ("pgsql://localhost/db?password=s3cret", "names no engine"),
        ("jsonl://./folder/x%2f..%2f..%2fescaped", "names no collection"),
        ("jsonl://./folder/%2e%2e", "names no collection"),
    ],
)
def test_what_is_unclear_or_secret_is_refused_without_showing_it(address, said):
    with pytest.raises(UserError) as raised:
        parse_address(address, ENGINES)
    assert said in str(raised.value)
    assert "s3cret" not in str(raised.value)


def test_addresses_that_are_clear_are_taken():
    for address, name in {
        "lancedb://./a@b/c@d": "c@d", "jsonl://data/a@b/docs": "docs", "qdrant://h:6333/a%40b": "a@b",
    }.items():  # fmt: skip
        assert parse_address(address, ENGINES).collection == name
    found = parse_address("postgresql:///base?host=/run/socket&options=-c%20a%3D1+2", ENGINES)
    assert (found.server, found.collection) == ("", "base")
    assert found.options == {"host": "/run/socket", "options": "-c a=1+2"}
    assert parse_address("jsonl:///docs", ENGINES).server == "/"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a://h/b?x=1&password=s3cret&y=2", "a://h/b?x=1&password=***&y=2"),
        ("a://h/b?API_KEY=s3cret 'c'", "a://h/b?API_KEY=*** 'c'"),
        ("a://me:p@s/s3cret@h/b", "a://***@h/b"),
        ("see https://h/@me/b and x@y", "see https://h/@me/b and x@y"),
        ("h:1/?tokens=7&length=2", "h:1/?tokens=7&length=2"),
    ],
)
def test_secrets_in_an_address_are_hidden(text, shown):
    assert redact(text) == shown


def test_a_refused_address_is_shown_without_its_secret(tmp_path):
    words = ["search", str(tmp_path), "cat", "--with", "bm25", "--index"]
    done = CliRunner().invoke(app, [*words, "postgresql://h/db?password=s3cret"])
    assert "are not for an engine" in str(done.exception)
    assert "s3cret" not in str(done.exception)
