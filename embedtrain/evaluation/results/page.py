"""One HTML page that needs nothing else: text, tables and pictures as SVG, no script and no network."""

from collections.abc import Sequence
from html import escape
from io import StringIO
from typing import Any

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #ddd }
table { border-collapse: collapse; margin: .5rem 0; width: 100% }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #eee; vertical-align: top }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
figure { margin: 1rem 0 } svg { max-width: 100%; height: auto } p.note { color: #555 }
"""
TEXT_LENGTH = 400
"""Characters of a text that are shown."""


def page(title: str, sections: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Put sections, each a heading and pieces of HTML, into a page."""
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
    ]
    for heading, pieces in sections:
        parts += [f"<h2>{escape(heading)}</h2>", *pieces]
    return "\n".join([*parts, "</body></html>", ""])


def paragraph(text: str) -> str:
    """Return a paragraph of explanation."""
    return f'<p class="note">{escape(text)}</p>'


def table(headings: Sequence[str], rows: Sequence[Sequence[str | float | int]]) -> str:
    """Return a table; numbers stand to the right, long texts are cut."""
    numeric = [
        bool(rows) and all(isinstance(row[column], float | int) for row in rows)
        for column in range(len(headings))
    ]
    head = "".join(
        _cell("th", text, number) for text, number in zip(headings, numeric, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            _cell("td", _shown(value), number) for value, number in zip(row, numeric, strict=True)
        )
        + "</tr>\n"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"


def picture(figure: Any, caption: str) -> str:  # noqa: ANN401 - matplotlib is untyped here
    """Return a figure of matplotlib as SVG inside the page."""
    output = StringIO()
    figure.savefig(output, format="svg", metadata={"Date": None})
    drawing = output.getvalue()
    drawing = drawing[drawing.index("<svg") :]  # without the declaration of a file of its own
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def _cell(tag: str, text: str, number: bool) -> str:
    kind = ' class="number"' if number else ""
    return f"<{tag}{kind}>{escape(text)}</{tag}>"


def _shown(value: str | float | int) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value) if isinstance(value, int) else " ".join(value.split())
    return text if len(text) <= TEXT_LENGTH else text[:TEXT_LENGTH] + "..."
