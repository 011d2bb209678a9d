"""Amounts as people read them."""

from collections.abc import Sequence

BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "KB"), (1.0, "bytes"))
SECONDS = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def show_bytes(amount: float | int) -> str:
    """Write bytes in the unit that reads best."""
    return _in_units(amount, BYTES)


def show_seconds(amount: float | int) -> str:
    """Write a time in the unit that reads best."""
    return _in_units(amount, SECONDS)


def _in_units(amount: float | int, units: Sequence[tuple[float, str]]) -> str:
    """Write three digits in the largest unit of which there is one at least."""
    size, unit = next((one for one in units if abs(amount) >= one[0]), units[-1])
    return f"{float(f'{amount / size:.3g}'):,g} {unit}"
