"""A bad server and a killed process: all is written, nothing twice, and the bill is the server's, request by request."""

import sys

import pytest
from writer_toys import stress


@pytest.mark.parametrize(
    ("number", "kills"),
    [(60, 2), pytest.param(1000, 10, marks=pytest.mark.prove)],
)
def test_what_fails_and_dies_is_complete_and_paid_once(number, kills, tmp_path, monkeypatch):
    figures = stress(number, kills, tmp_path, monkeypatch)
    sys.stdout.write(f"{figures}\n")
    assert figures["kept"] >= number
    assert len(figures["faults"]) == 7
