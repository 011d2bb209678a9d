import pytest


@pytest.fixture
def no_waits(monkeypatch):
    """Try again at once, and send no key of the user."""
    from embedtrain.encoding.language import endpoint, posting

    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.001)
    monkeypatch.delenv(posting.KEY, raising=False)
