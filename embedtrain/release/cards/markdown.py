"""Markdown of model cards. Names and texts come from outside: none may add a link, a heading or markup of its own."""

import re

Row = list[str | int]


def inline(text: str) -> str:
    """Return a text as one line that Markdown shows as it is: no HTML, link, picture or table of its own."""
    line = " ".join(text.split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return re.sub(r"([\[\]])(?=\s*[(\[:])", r"\\\1", line).replace("```", "'''")


def fenced(text: str, language: str) -> str:
    """Return a block of code, its fence longer than any inside."""
    inside = max(map(len, re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (inside + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def markdown_table(headings: list[str], rows: list[Row]) -> str:
    """Return a table of Markdown; whole numbers get their thousands marked."""
    lines: list[Row] = [[*headings], ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(cell: str | int) -> str:
    return f"{cell:,}" if isinstance(cell, int) else inline(cell)
