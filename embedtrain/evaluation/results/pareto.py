"""Quality beside cost: which of several results no other beats on both."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Literal

from rich import box
from rich.markup import escape
from rich.table import Table

from embedtrain.errors import UserError
from embedtrain.evaluation.results.comparison import system_names
from embedtrain.evaluation.results.plots import new_figure, save_figure
from embedtrain.evaluation.results.result import load_result

Cost = Literal["bytes", "latency", "encoding"]
LABELS: dict[Cost, str] = {
    "bytes": "bytes of index per document",
    "latency": "seconds per query, median",
    "encoding": "seconds to encode a document",
}


@dataclass(frozen=True)
class Point:
    """One result: its quality and what it costs; less cost is better."""

    name: str
    quality: float
    costs: dict[Cost, float]


def load_points(paths: Sequence[Path], metric: str | None = None) -> tuple[str, list[Point]]:
    """Read results of one task with their efficiency; return the metric and a point for each.

    Raises:
        UserError: If a result has no efficiency or not the metric, or tasks differ.
    """
    results = [load_result(path) for path in paths]
    chosen = metric or next(iter(results[0].metrics))
    points = []
    for path, name, result in zip(paths, system_names(paths), results, strict=True):
        if result.data.fingerprint != results[0].data.fingerprint:
            raise UserError(path, "was measured on other data", got=result.data.name)
        if result.efficiency is None:
            raise UserError(path, "has no efficiency", cure="Evaluate again with --efficiency")
        if chosen not in result.metrics:
            raise UserError(path, f"has no {chosen}", got=list(result.metrics))
        costs: dict[Cost, float] = {
            "bytes": result.efficiency.bytes_per_document,
            "latency": result.efficiency.query_latency.p50_seconds,
            "encoding": 1 / result.efficiency.documents_per_second,
        }
        points.append(Point(name, result.metrics[chosen].value, costs))
    return chosen, points


def pareto_front(points: Sequence[Point], cost: Cost) -> list[bool]:
    """Tell of each point whether no other beats it: none is as good on both sides and better on one."""
    return [
        not any(
            other.quality >= point.quality
            and other.costs[cost] <= point.costs[cost]
            and (other.quality > point.quality or other.costs[cost] < point.costs[cost])
            for other in points
        )
        for point in points
    ]


def pareto_table(points: Sequence[Point], metric: str) -> Table:
    """Lay points out, best quality first; a star marks those on the front of that cost."""
    table = Table(
        "result", box=box.SIMPLE_HEAD, caption="* beaten by none on both quality and this cost"
    )
    table.add_column(metric, justify="right")
    for label in LABELS.values():
        table.add_column(label, justify="right")
    fronts = {cost: pareto_front(points, cost) for cost in LABELS}
    for row in sorted(range(len(points)), key=lambda one: -points[one].quality):
        point = points[row]
        cells = [f"{point.costs[cost]:.4g}{' *' if fronts[cost][row] else '  '}" for cost in LABELS]
        table.add_row(escape(point.name), f"{point.quality:.3f}", *cells)
    return table


def plot_pareto(points: Sequence[Point], metric: str, cost: Cost, path: Path) -> None:
    """Draw quality against one cost, the front as a line."""
    figure, axes = new_figure(path)
    front = pareto_front(points, cost)
    line = sorted(compress(points, front), key=lambda one: one.costs[cost])
    axes.plot([one.costs[cost] for one in line], [one.quality for one in line], color="C0")
    for point, best in zip(points, front, strict=True):
        color = "C0" if best else "0.6"
        axes.plot([point.costs[cost]], [point.quality], "o", color=color)
        place = (point.costs[cost], point.quality)
        axes.annotate(point.name, place, textcoords="offset points", xytext=(5, 4), fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel(LABELS[cost])
    axes.set_ylabel(metric)
    save_figure(figure, path)
