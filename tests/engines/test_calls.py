"""A call that may pass is made again; any other failure is one line without a secret."""

import pytest

from embedtrain.engines import calls
from embedtrain.engines.address import parse_address
from embedtrain.engines.calls import call, load_client
from embedtrain.engines.open import ENGINES
from embedtrain.engines.qdrant import KEY, connection
from embedtrain.errors import UserError


class BusyError(Exception):
    pass


@pytest.fixture
def waits(monkeypatch):
    found = []
    monkeypatch.setattr(calls.time, "sleep", found.append)
    return found


def test_a_failure_that_passes_is_tried_again_with_longer_waits(waits):
    answers = iter([BusyError("429"), BusyError("429"), "done"])

    def work():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert call("place", work, (BusyError,), lambda _: True) == "done"
    assert waits == [0.5, 1.0]


@pytest.mark.parametrize(("passes", "tries"), [(True, calls.TRIES), (False, 1)])
def test_a_failure_that_stays_is_one_line(waits, passes, tries):
    done = []

    def work():
        done.append(1)
        raise BusyError("bad request\nto http://me:secret@host")

    with pytest.raises(
        UserError, match=r"place refuses; got .bad request to http://\*\*\*@host"
    ) as raised:
        call("place", work, (BusyError,), lambda _: passes)
    assert "secret" not in str(raised.value)
    assert len(done) == tries


def test_a_failure_that_nobody_foresaw_passes_through():
    with pytest.raises(KeyError):
        call("place", lambda: {}["a"], (BusyError,))


def test_a_client_that_is_not_installed_is_named():
    with pytest.raises(UserError, match=r"nothing is needed for nothing:// but is not installed"):
        load_client("embedtrain_has_no_such_client", "nothing", "databases", "nothing")


def test_a_server_of_qdrant_is_reached_by_its_address_and_key(monkeypatch):
    monkeypatch.setenv(KEY, "word\n")
    found = connection(parse_address("qdrant+https://host:6333/docs", ENGINES))
    assert (found["url"], found["api_key"]) == ("https://host:6333", "word")
    monkeypatch.delenv(KEY)
    found = connection(parse_address("qdrant://host:6333/docs", ENGINES))
    assert (found["url"], found["api_key"]) == ("http://host:6333", None)
    assert connection(parse_address("qdrant://./a/docs", ENGINES)) == {"path": "a"}
