"""What an index costs and what it misses, as people read it."""

from rich import box
from rich.markup import escape
from rich.table import Table

from embedtrain.evaluation.results.result import IndexFigures
from embedtrain.evaluation.results.wording import counted, metric_title
from embedtrain.units import show_bytes, show_seconds


def index_name(figures: IndexFigures) -> str:
    """Write an index as ``--index`` takes it: ``two_step:query_words=20``, without what is null."""
    settings = [
        f"{key}={value}"
        for key, value in figures.settings.items()
        if key != "name" and value is not None and value != ""
    ]
    name = str(figures.settings["name"])
    return f"{name}:{','.join(settings)}" if settings else name


def index_table(figures: IndexFigures, style: box.Box) -> Table:
    """Lay out what an index costs, and its recall against exact search."""
    caption = (
        f"recall is that of the exact search, on {counted(figures.num_queries, 'query', 'queries')}"
    )
    if figures.latency is not None:
        caption += "; a search begins with the vector of one query"
    table = Table(
        f"index {escape(index_name(figures))}", box=style, caption=caption, caption_justify="left"
    )
    table.add_column("", justify="right")
    for name, recall in figures.recall.items():
        table.add_row(metric_title(name), f"{recall:.3f}")
    table.add_row("per document", show_bytes(figures.bytes_per_document))
    if figures.build_seconds:
        table.add_row("built in", show_seconds(figures.build_seconds))
    if figures.postings_per_query is not None:
        table.add_row("postings of a query", f"{figures.postings_per_query:,.0f}")
    if figures.latency is not None:
        table.add_row("search, median", show_seconds(figures.latency.p50_seconds))
        table.add_row("search, 95th percentile", show_seconds(figures.latency.p95_seconds))
    return table
