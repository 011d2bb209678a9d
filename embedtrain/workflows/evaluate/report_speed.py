"""How fast a run trained, on its page."""

import csv
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from embedtrain.evaluation.results.page import Section, paragraph, table
from embedtrain.outside import reading
from embedtrain.units import show_bytes

ROWS = {
    "tokens_per_second": "Tokens a second",
    "texts_per_second": "Texts a second",
    "padding_ratio": "Padding, share of the tokens computed",
    "mfu": "MFU",
    "data_wait_ratio": "Waiting for data, share of the time",
    "peak_memory_bytes": "Peak memory of a device",
}
"""Figures of speed.csv behind ``speed/``, in this order."""


def read_speed(path: Path) -> dict[str, float]:
    """Return the median of each figure over the lines of a run's ``speed.csv``, of memory the most."""
    columns: dict[str, list[float]] = {}
    if path.is_file():
        with reading(path), path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                for name in ROWS:
                    if value := row.get(f"speed/{name}"):
                        columns.setdefault(name, []).append(float(value))
    found = {name: median(values) for name, values in columns.items()}
    if "peak_memory_bytes" in columns:
        found["peak_memory_bytes"] = max(columns["peak_memory_bytes"])
    return found


def speed_section(speed: Mapping[str, float]) -> list[Section]:
    """List the figures; a run of too few steps has none."""
    if not speed:
        return []
    rows = [(words, _shown(name, speed[name])) for name, words in ROWS.items() if name in speed]
    pieces = [table(("", "median"), rows)]
    if "mfu" not in speed:
        pieces.append(paragraph("No MFU: the device or the model is not in its tables."))
    return [("Speed of training", pieces)]


def _shown(name: str, value: float) -> str:
    if name == "peak_memory_bytes":
        return show_bytes(value)
    return f"{value:.1%}" if name == "mfu" or name.endswith("ratio") else f"{value:,.0f}"
