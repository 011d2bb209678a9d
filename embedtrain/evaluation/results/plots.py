"""Pictures of results, drawn by matplotlib without a display."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from embedtrain.errors import UserError, missing_extra
from embedtrain.evaluation.results.comparison import ComparedScore, own_words, shared_words
from embedtrain.evaluation.results.page import escape
from embedtrain.evaluation.results.result import EvaluationResult
from embedtrain.evaluation.results.wording import metric_title, short_name
from embedtrain.files import check_file, write_file
from embedtrain.locks import owns

SUFFIXES = (".svg", ".png", ".pdf")
COLORS = ("#0b62c4", "#c4530b", "#0b8a5c", "#8a3fb5", "#a3790b")
"""Of the systems, in their order; the page has a lighter one of each for the dark."""
MUTED, INK, LINE = "#6e7681", "#1c2128", "#d0d7de"
VARIABLES = {
    **{color: f"c{place}" for place, color in enumerate(COLORS)},
    MUTED: "muted",
    INK: "ink",
    LINE: "line",
}
"""Colours that a page sets by its own variables of these names, for light and dark."""
STYLE = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
    "svg.hashsalt": "embedtrain",  # the same figure gives the same bytes
    "text.parse_math": False,  # a name may hold dollar signs
    "axes.prop_cycle": f"cycler('color', {list(COLORS)})",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "axes.edgecolor": MUTED,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
INCHES, USUAL_LABEL = 0.09, 40
"""Width of a character; characters of a label that a picture of the usual width has room for."""
FOR_METRICS = 4
"""Systems up to which a plot shows all their metrics; of more it shows the main one."""


@owns("path")
def plot_comparison(rows: Sequence[ComparedScore], baseline: str, path: Path) -> None:
    """Draw the difference of every system and task from the baseline, with its interval.

    Raises:
        UserError: If matplotlib is missing or the ending is none that it is asked to write.
    """
    labels = [
        ": ".join(short_name(word) for word in (row.system, own_words(row, rows)) if word)
        for row in rows
    ]
    width = 8.0 + INCHES * max(0, max(map(len, labels), default=0) - USUAL_LABEL)
    with new_figure(path, width=width, height=1.2 + 0.35 * len(rows)) as (figure, axes):
        places = range(len(rows), 0, -1)
        for place, row in zip(places, rows, strict=True):
            _interval(axes, place, row.difference, row.low, row.high, color=COLORS[0])
        axes.axvline(0, color=MUTED, linewidth=1)
        axes.set_yticks(list(places), labels)
        axes.set_ylim(0.4, len(rows) + 0.6)
        same = short_name(shared_words(rows))
        about = f"{same}: " if same else ""
        axes.set_xlabel(f"{about}difference from {short_name(baseline)}, 95 % interval")
        save_figure(figure, path)


def draw_scores(systems: Mapping[str, EvaluationResult], baseline: str | None) -> str:
    """Draw the scores of systems on one task with their intervals, as SVG for a page; the baseline is grey."""
    first = next(iter(systems.values()))
    metrics = [
        one for one in first.metrics if all(one in other.metrics for other in systems.values())
    ]
    by_system = len(systems) > FOR_METRICS
    metrics = metrics[:1] if by_system else metrics
    colors = iter(COLORS * len(systems))
    color = {name: MUTED if name == baseline else next(colors) for name in systems}
    rows = [(metric, name) for metric in metrics for name in systems]
    with new_figure(None, width=6.4, height=0.9 + 0.23 * (len(rows) + len(metrics))) as (
        figure,
        axes,
    ):
        space = 0 if by_system else 0.7  # between two metrics
        for number, (metric, name) in enumerate(rows):
            place = number + space * metrics.index(metric)
            found = systems[name].metrics[metric]
            label = (
                short_name(name)
                if metric == metrics[0] and not by_system and len(systems) > 1
                else None
            )
            _interval(
                axes, -place, found.value, found.low, found.high, color=color[name], label=label
            )
        if by_system:
            axes.set_yticks(
                [-place for place in range(len(rows))], [short_name(name) for _, name in rows]
            )
        else:
            middle = (len(systems) - 1) / 2
            places = [-(len(systems) + space) * place - middle for place in range(len(metrics))]
            axes.set_yticks(places, [short_name(metric_title(one)) for one in metrics])
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(
            f"{short_name(metric_title(metrics[0]))}, 95 % interval"
            if by_system
            else "score, 95 % interval"
        )
        if not by_system and len(systems) > 1:
            figure.legend(loc="outside upper left", ncols=2, frameon=False)
        return svg(figure, "Scores with their 95 % intervals")


def draw_curve(points: Sequence[tuple[float | int, float]], title: str, across: str) -> str:
    """Draw values over another quantity, as SVG for a page."""
    with new_figure(None, width=4.4, height=2.6) as (figure, axes):
        axes.plot(
            *zip(*points, strict=True), marker="o" if len(points) < 20 else None, markersize=4
        )
        if all(isinstance(place, int) for place, _ in points):  # there is no half of a step
            axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_title(short_name(title), loc="left", fontsize=11)
        axes.set_xlabel(across)
        return svg(figure, f"{title} over {across}")


def _interval(
    axes: Any,  # noqa: ANN401 - matplotlib is untyped here
    place: float | int,
    value: float,
    low: float,
    high: float,
    **style: object,
) -> None:
    spread = [[max(value - low, 0.0)], [max(high - value, 0.0)]]
    axes.errorbar([value], [place], xerr=spread, fmt="o", capsize=3, markersize=5, **style)


@contextmanager
def new_figure(
    path: Path | None, *, width: float = 8.0, height: float = 4.0
) -> Iterator[tuple[Any, Any]]:
    """Give a figure and its axes in our style; check first that ``path`` can hold it."""
    if path is not None:
        if path.suffix not in SUFFIXES:
            raise UserError(
                "--plot", "has an unknown ending", got=path.name, cure="Use .svg or .png"
            )
        check_file("--plot", path)
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("matplotlib", "evaluation", "to draw a plot") from error
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots()


def save_figure(figure: Any, path: Path) -> None:  # noqa: ANN401 - matplotlib is untyped here
    """Write a figure, making its folder; the same figure gives the same bytes."""
    metadata = {"Date": None} if path.suffix == ".svg" else None
    drawn = BytesIO()
    figure.savefig(drawn, format=path.suffix[1:], metadata=metadata)
    write_file(path, drawn.getvalue())


def svg(figure: Any, title: str) -> str:  # noqa: ANN401 - matplotlib is untyped here
    """Return a figure as SVG inside a page, in the page's colours and without what only a file needs."""
    output = StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(output, format="svg", transparent=True, metadata=nothing)
    drawing = output.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r' id="[a-zA-Z0-9]+_\d+"', "", drawing)  # else twice in a page of two figures
    for color, name in VARIABLES.items():
        drawing = drawing.replace(color, f"var(--{name})")
    return drawing.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
