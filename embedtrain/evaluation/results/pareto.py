"""Quality beside cost: which of several results no other beats on both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.markup import escape
from rich.table import Table

from embedtrain.errors import UserError
from embedtrain.evaluation.results.plots import COLORS, MUTED, new_figure, save_figure, svg
from embedtrain.evaluation.results.result import EvaluationResult, load_result
from embedtrain.evaluation.results.wording import file_names, metric_title, short_name
from embedtrain.units import show_bytes, show_seconds

Cost = Literal["bytes", "latency", "encoding"]
LABELS: dict[Cost, str] = {
    "bytes": "index per document",
    "latency": "time per query, median",
    "encoding": "time to encode a document",
}
SHOWN: dict[Cost, Callable[[float], str]] = {
    "bytes": show_bytes,
    "latency": show_seconds,
    "encoding": show_seconds,
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
    for path, result in zip(paths, results, strict=True):
        if result.data.fingerprint != results[0].data.fingerprint:
            raise UserError(path, "was measured on other data", got=result.data.name)
        if result.efficiency is None:
            raise UserError(path, "has no efficiency", cure="Evaluate again with --efficiency")
        if chosen not in result.metrics:
            raise UserError(path, f"has no {chosen}", got=list(result.metrics))
    named = zip(file_names(paths), results, strict=True)
    return chosen, [as_point(name, result, chosen) for name, result in named]


def as_point(name: str, result: EvaluationResult, metric: str) -> Point:
    """Return the quality and the costs of a result that has both."""
    cost = result.efficiency
    assert cost is not None
    costs: dict[Cost, float] = {
        "bytes": cost.bytes_per_document,
        "latency": cost.query_latency.p50_seconds,
        "encoding": 1 / cost.documents_per_second,
    }
    return Point(name, result.metrics[metric].value, costs)


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
    table.add_column(metric_title(metric), justify="right")
    for label in LABELS.values():
        table.add_column(label, justify="right")
    fronts = {cost: pareto_front(points, cost) for cost in LABELS}
    for row in sorted(range(len(points)), key=lambda one: -points[one].quality):
        point = points[row]
        cells = [
            f"{SHOWN[cost](point.costs[cost])}{' *' if fronts[cost][row] else '  '}"
            for cost in LABELS
        ]
        table.add_row(escape(point.name), f"{point.quality:.3f}", *cells)
    return table


def plot_pareto(points: Sequence[Point], metric: str, cost: Cost, path: Path) -> None:
    """Draw quality against one cost, the front as a line."""
    with new_figure(path) as (figure, axes):
        _draw(axes, points, metric, cost)
        save_figure(figure, path)


def draw_pareto(points: Sequence[Point], metric: str, cost: Cost) -> str:
    """Draw the same as SVG for a page."""
    with new_figure(None, width=4.4, height=3.2) as (figure, axes):
        _draw(axes, points, metric, cost)
        return svg(figure, f"{metric_title(metric)} against {LABELS[cost]}")


def _draw(axes: Any, points: Sequence[Point], metric: str, cost: Cost) -> None:  # noqa: ANN401 - matplotlib is untyped here
    front = pareto_front(points, cost)
    line = sorted(compress(points, front), key=lambda one: one.costs[cost])
    axes.plot([one.costs[cost] for one in line], [one.quality for one in line], color=COLORS[0])
    costs = [point.costs[cost] for point in points]
    middle = (min(costs) + max(costs)) / 2
    ordered = sorted(zip(points, front, strict=True), key=lambda one: one[0].quality)
    for number, (point, best) in enumerate(ordered):
        place = (point.costs[cost], point.quality)
        axes.plot(*([one] for one in place), "o", color=COLORS[0] if best else MUTED)
        right = place[0] > middle
        offset = (
            -5 if right else 5,
            6 if number % 2 else -13,
        )  # neighbours do not write over each other
        axes.annotate(
            short_name(point.name),
            place,
            textcoords="offset points",
            xytext=offset,
            ha="right" if right else "left",
            fontsize=9,
        )
    if max(costs) > 10 * min(costs) > 0:
        axes.set_xscale("log")
    else:
        axes.locator_params(axis="x", nbins=4)
    axes.margins(0.15)
    axes.xaxis.set_major_formatter(lambda value, _: SHOWN[cost](value))
    axes.set_xlabel(LABELS[cost])
    axes.set_ylabel(short_name(metric_title(metric)))
