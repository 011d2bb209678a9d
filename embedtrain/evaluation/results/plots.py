"""Pictures of results, drawn by matplotlib without a display."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from embedtrain.errors import UserError, missing_extra
from embedtrain.evaluation.results.comparison import ComparedScore
from embedtrain.files import check_file, write_file

SUFFIXES = (".svg", ".png", ".pdf")


def plot_comparison(rows: Sequence[ComparedScore], baseline: str, path: Path) -> None:
    """Draw the difference of every system and task from the baseline, with its interval.

    Raises:
        UserError: If matplotlib is missing or the ending is none that it is asked to write.
    """
    figure, axes = new_figure(path, height=1.2 + 0.35 * len(rows))
    places = range(len(rows), 0, -1)
    for place, row in zip(places, rows, strict=True):
        spread = [[row.difference - row.low], [row.high - row.difference]]
        axes.errorbar([row.difference], [place], xerr=spread, fmt="o", color="C0", capsize=3)
    axes.axvline(0, color="0.6", linewidth=1)
    axes.set_yticks(list(places), [f"{row.system}: {row.task} ({row.metric})" for row in rows])
    axes.set_ylim(0.4, len(rows) + 0.6)
    axes.set_xlabel(f"difference from {baseline}, 95 % interval")
    save_figure(figure, path)


def new_figure(path: Path | None, *, width: float = 8.0, height: float = 4.0) -> tuple[Any, Any]:
    """Return a figure and its axes; check first that ``path`` can hold it."""
    if path is not None:
        if path.suffix not in SUFFIXES:
            raise UserError(
                "--plot", "has an unknown ending", got=path.name, cure="Use .svg or .png"
            )
        check_file("--plot", path)
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("matplotlib", "evaluation", "to draw a plot") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def save_figure(figure: Any, path: Path) -> None:  # noqa: ANN401 - matplotlib is untyped here
    """Write a figure, making its folder; the same figure gives the same bytes."""
    metadata = {"Date": None} if path.suffix == ".svg" else None
    drawn = BytesIO()
    figure.savefig(drawn, format=path.suffix[1:], metadata=metadata)
    write_file(path, drawn.getvalue())
