"""Addresses are asked again without waiting, and no key of the machine is sent."""

import pytest

from embedtrain.encoding.language import endpoint


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.001)
    monkeypatch.delenv(endpoint.KEY, raising=False)
