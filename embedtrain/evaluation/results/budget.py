"""The best result that fits a budget, and a sweep's results as files."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedtrain.errors import UserError
from embedtrain.evaluation.measures.statistics import PairedComparison
from embedtrain.evaluation.results.pareto import LABELS, Cost, Point
from embedtrain.files import write_file
from embedtrain.units import show_bytes, show_seconds

UNITS = {"b": 1, "kb": 1_000, "kib": 1_024}
AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*(b|kb|kib)?", re.IGNORECASE)


@dataclass(frozen=True)
class Choice:
    """What a budget buys."""

    point: Point
    share: float
    """Of the best quality among all points."""
    fits: bool
    """Whether it keeps within the budget and is good enough; else it is the nearest."""


def parse_budget(text: str) -> float:
    """Read bytes per document: ``64B``, ``1.5KB``.

    Raises:
        UserError: If it is no amount of bytes above 0.
    """
    found = AMOUNT.fullmatch(text.strip())
    amount = float(found[1]) * UNITS[(found[2] or "b").lower()] if found else 0.0
    if amount <= 0:
        raise UserError("--budget", "is no number of bytes", got=text, cure="Write 64B or 1.5KB")
    return amount


def dominating(points: Sequence[Point]) -> list[bool]:
    """Tell of each point whether no other is as good in quality and both costs and better in one."""
    costs: tuple[Cost, ...] = ("bytes", "latency")

    def beats(one: Point, other: Point) -> bool:
        gains = [one.worth - other.worth, *(other.costs[c] - one.costs[c] for c in costs)]
        return min(gains) >= 0 and max(gains) > 0

    return [not any(beats(other, point) for other in points) for point in points]


def choose(points: Sequence[Point], budget: float, share: float) -> Choice:
    """Return the best point within so many bytes per document, of equal ones the smaller, then the faster.

    If none keeps the ``share`` of the best quality of all points, the best within the budget is the nearest; if none is
    within it, the smallest.
    """
    whole = max(point.quality for point in points)
    within = [point for point in points if point.costs["bytes"] <= budget]
    if not within:
        nearest = min(points, key=lambda one: (one.costs["bytes"], -one.worth))
        return Choice(nearest, nearest.quality / whole, fits=False)
    best = min(within, key=lambda one: (-one.worth, one.costs["bytes"], one.costs["latency"]))
    kept = best.quality / whole
    return Choice(best, kept, fits=kept >= share)


def sentence(choice: Choice, budget: float, share: float) -> str:
    """Say what the budget buys."""
    point = choice.point
    what = f"{point.name}: {show_bytes(point.costs['bytes'])} per document, {choice.share:.1%} of the best"
    if choice.fits:
        return what
    return f"none keeps {share:.1%} within {show_bytes(budget)}; nearest is {what}"


def write_points(
    folder: Path,
    points: Sequence[Point],
    metric: str,
    differences: Sequence[PairedComparison],
) -> None:
    """Write ``pareto.csv`` and ``pareto.md`` into a folder: each point, its distance from the first, whether one beats it."""
    front = dominating(points)
    with (folder / "pareto.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["form", metric, "difference", "low", "high", *LABELS, "front"])
        for point, apart, best in zip(points, differences, front, strict=True):
            figures = [point.quality, apart.difference, apart.low, apart.high]
            table.writerow([point.name, *figures, *(point.costs[c] for c in LABELS), int(best)])
    lines = [
        f"| form | {metric} | difference from the first, 95 % | bytes per document | per query | front |",
        "|---|---|---|---|---|---|",
    ]
    for point, apart, best in zip(points, differences, front, strict=True):
        lines.append(
            f"| {point.name} | {point.quality:.4f} | {apart.difference:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}] | "
            f"{point.costs['bytes']:g} | {show_seconds(point.costs['latency'])} | {'*' if best else ''} |"
        )
    write_file(folder / "pareto.md", "\n".join(lines) + "\n")
