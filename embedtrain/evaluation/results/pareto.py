"""Quality beside cost: which of several results no other beats on both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import compress, pairwise
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.markup import escape
from rich.table import Table

from embedtrain.errors import UserError
from embedtrain.evaluation.measures.metrics import lower_is_better
from embedtrain.evaluation.results.plots import COLORS, MUTED, new_figure, save_figure, svg
from embedtrain.evaluation.results.result import EvaluationResult, load_result
from embedtrain.evaluation.results.wording import file_names, metric_title, short_name
from embedtrain.locks import owns
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

BESIDE = [
    (
        (across, along),
        "left" if across > 0 else "right" if across < 0 else "center",
        "bottom" if along > 0 else "top",
    )
    for along in (4, -4, 15, -15, 26, -26)
    for across in (5, -5, 0)
]
"""Where a name may stand: its distance from the point in points of print, and the edges that are near it."""


@dataclass(frozen=True)
class Point:
    """One result: its quality and what it costs; less cost is better."""

    name: str
    quality: float
    costs: dict[Cost, float]
    counts_errors: bool = False
    """Less quality is better too."""

    @property
    def worth(self) -> float:
        """The quality, or how little it is."""
        return -self.quality if self.counts_errors else self.quality


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
    return chosen, [point for name, result in named for point in as_points(name, result, chosen)]


def as_points(name: str, result: EvaluationResult, metric: str) -> list[Point]:
    """Return a point; of two stages one for the first alone and one for each depth that the second orders."""
    whole, stages = as_point(name, result, metric), result.two_stage
    if stages is None:
        return [whole]
    points = [(f"{name}, first stage", stages.baseline[metric].value, stages.first_seconds)]
    for one in stages.depths:
        points.append((f"{name}, top {one.depth}", one.metrics[metric], one.seconds_per_query))
    return [
        replace(whole, name=title, quality=quality, costs={**whole.costs, "latency": seconds})
        for title, quality, seconds in points
        if seconds is not None
    ]


def as_point(name: str, result: EvaluationResult, metric: str) -> Point:
    """Return the quality and the costs of a result that has both."""
    cost = result.efficiency
    assert cost is not None
    costs: dict[Cost, float] = {
        "bytes": cost.bytes_per_document,
        "latency": cost.query_latency.p50_seconds,
        "encoding": 1 / cost.documents_per_second,
    }
    return Point(name, result.metrics[metric].value, costs, lower_is_better(metric))


def pareto_front(points: Sequence[Point], cost: Cost) -> list[bool]:
    """Tell of each point whether no other beats it: none is as good on both sides and better on one."""
    return [
        not any(
            other.worth >= point.worth
            and other.costs[cost] <= point.costs[cost]
            and (other.worth > point.worth or other.costs[cost] < point.costs[cost])
            for other in points
        )
        for point in points
    ]


def pareto_table(points: Sequence[Point], metric: str) -> Table:
    """Lay points out, best quality first; a star marks those on the front of that cost."""
    caption = "* beaten by none on both quality and this cost"
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=caption)
    table.add_column("result", overflow="fold")
    table.add_column(metric_title(metric), justify="right")
    for label in LABELS.values():
        table.add_column(label, justify="right")
    fronts = {cost: pareto_front(points, cost) for cost in LABELS}
    for row in sorted(range(len(points)), key=lambda one: -points[one].worth):
        point = points[row]
        cells = [
            f"{SHOWN[cost](point.costs[cost])}{' *' if fronts[cost][row] else '  '}"
            for cost in LABELS
        ]
        table.add_row(escape(point.name), f"{point.quality:.3f}", *cells)
    return table


@owns("path")
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
    costs = [point.costs[cost] for point in points]
    line = sorted((one.costs[cost], one.quality) for one in compress(points, front))
    axes.plot(*zip(*line, strict=True), color=COLORS[0])
    for point, best in zip(points, front, strict=True):
        axes.plot([point.costs[cost]], [point.quality], "o", color=COLORS[0] if best else MUTED)
    if max(costs) > 10 * min(costs) > 0:
        axes.set_xscale("log")
    else:
        axes.locator_params(axis="x", nbins=4)
    axes.margins(0.15)
    axes.xaxis.set_major_formatter(lambda value, _: SHOWN[cost](value))
    axes.set_xlabel(LABELS[cost])
    axes.set_ylabel(short_name(metric_title(metric)))
    _write_names(axes, [(one.name, (one.costs[cost], one.quality)) for one in points], line)


def _write_names(
    axes: Any,  # noqa: ANN401
    names: Sequence[tuple[str, tuple[float, float]]],
    line: Sequence[tuple[float, float]],
) -> None:
    """Write a name beside each point, where it covers least of the points, the line and other names."""
    from matplotlib.transforms import Bbox

    axes.figure.draw_without_rendering()  # only then is it known where things stand
    dots = axes.transData.transform([place for _, place in names])
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in dots]
    for start, end in pairwise(axes.transData.transform(line)):
        steps = [start + (end - start) * part / 50 for part in range(51)]
        taken += [Bbox.from_bounds(x - 1, y - 1, 2, 2) for x, y in steps]

    def covered(text: Any) -> float:  # noqa: ANN401
        box = text.get_window_extent()
        shared = [Bbox.intersection(box, other) for other in [*taken, axes.bbox]]
        areas = [0.0 if one is None else one.width * one.height for one in shared]
        return float(sum(areas[:-1]) + 10 * (box.width * box.height - areas[-1]))

    for name, place in names:
        written = [
            axes.annotate(
                short_name(name), place, textcoords="offset points", xytext=offset,
                ha=across, va=along, fontsize=8, in_layout=False,
            )
            for offset, across, along in BESIDE
        ]  # fmt: skip
        best = min(written, key=covered)
        taken.append(best.get_window_extent())
        for text in written:
            if text is not best:
                text.remove()
