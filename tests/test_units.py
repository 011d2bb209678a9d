"""Amounts are shown in the unit that reads best."""

import pytest

from embedtrain.units import show_bytes, show_seconds


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        *[(48, "48 bytes"), (999, "999 bytes"), (1536, "1.54 KB"), (7654321, "7.65 MB")],
        *[(2e9, "2 GB"), (3.5e12, "3,500 GB"), (0, "0 bytes")],
    ],
)
def test_bytes_are_shown_in_the_unit_that_reads_best(amount, shown):
    assert show_bytes(amount) == shown


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        *[(0.0000125, "12.5 µs"), (0.0045, "4.5 ms"), (1.5, "1.5 s"), (150, "2.5 minutes")],
        *[(9000, "2.5 hours"), (0.0, "0 µs")],
    ],
)
def test_times_are_shown_in_the_unit_that_reads_best(amount, shown):
    assert show_seconds(amount) == shown
