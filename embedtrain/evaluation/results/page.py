"""One HTML page that needs nothing else: text, tables and pictures as SVG, no script and no network."""

import re
from collections.abc import Sequence
from html import escape as escape_signs

STYLE = """
:root { color-scheme: light dark; --ink: #1c2128; --muted: #57606a; --line: #d0d7de; --back: #fff; --soft: #f4f6f8;
  --c0: #0b62c4; --c1: #b04a08; --c2: #0b7d53; --c3: #8a3fb5; --c4: #8a6608 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --muted: #9da7b3; --line: #3a424c; --back: #0f1419;
  --soft: #1a212a; --c0: #6cb0ff; --c1: #ff9f57; --c2: #4fd09b; --c3: #d39bf5; --c4: #e3bd54 } }
* { box-sizing: border-box }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 58rem; margin: 2rem auto 4rem; padding: 0 1rem; color: var(--ink);
  background: var(--back); overflow-wrap: break-word }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 } h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem }
p { margin: .5rem 0; max-width: 46rem } p.note, figcaption { color: var(--muted); font-size: .9rem }
p.lead { font-size: 1.15rem; background: var(--soft); border-left: 4px solid var(--c0); padding: .75rem 1rem; margin: 1.25rem 0;
  max-width: none }
div.scroll { overflow-x: auto; margin: .75rem 0 } table { border-collapse: collapse; min-width: 50% }
th, td { text-align: left; padding: .35rem 1.2rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums } td.number { white-space: nowrap; overflow-wrap: normal }
th { color: var(--muted); font-weight: 600; font-size: .9rem } td { overflow-wrap: anywhere; min-width: 7rem } td:first-child { min-width: 9rem } td.number { min-width: 0 }
@media (max-width: 36rem) { th, td { padding-right: .6rem; font-size: .8rem } td { min-width: 4.5rem } td:first-child { min-width: 6rem } td.number { min-width: 0; white-space: normal } }
div.figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)) }
figure { margin: 0 } svg { max-width: 100%; height: auto; display: block } svg text { font-family: system-ui, sans-serif }
details { margin: .75rem 0 } summary { cursor: pointer; color: var(--c0) }
pre { background: var(--soft); padding: .75rem 1rem; overflow-x: auto; font-size: .85rem; line-height: 1.45 }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may load or run: styles of the page itself. No script, even if one got past the escaping."""
TEXT_LENGTH = 160
"""Characters of a text that are shown."""
LONGEST = 2_000
"""Characters of a name or sentence; a block of code is shown whole."""
NO_CHARACTER = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""What a page may not hold."""
Cell = str | float | int
Section = tuple[str, Sequence[str]]
"""A heading, empty for what stands first, and pieces of HTML."""


def escape(text: str, longest: int | None = LONGEST) -> str:
    """Return a text of a user's as HTML shows it: no tag, no character that breaks a page, no end without end."""
    cut = text if longest is None or len(text) <= longest else text[:longest] + "..."
    return escape_signs(NO_CHARACTER.sub("\N{REPLACEMENT CHARACTER}", cut))


def page(title: str, sections: Sequence[Section]) -> str:
    """Put sections into a page."""
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
    ]
    for heading, pieces in sections:
        parts += [f"<h2>{escape(heading)}</h2>"] * bool(heading) + [*pieces]
    return "\n".join([*parts, "</body></html>", ""])


def paragraph(text: str, kind: str = "note") -> str:
    """Return a paragraph: a ``note`` explains, the ``lead`` is what one came for."""
    return f'<p class="{kind}">{escape(text)}</p>'


def heading(text: str) -> str:
    """Return a heading inside a section."""
    return f"<h3>{escape(text)}</h3>"


def code(text: str) -> str:
    """Return a block of code."""
    return f"<pre>{escape(text, None)}</pre>"


def fold(summary: str, pieces: Sequence[str]) -> str:
    """Return what is shown only to those who ask for it."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(pieces)}</details>"


def figures(drawings: Sequence[str]) -> str:
    """Return drawings beside each other, or below on a narrow screen; nothing if there are none."""
    shown = "".join(f"<figure>{drawing}</figure>" for drawing in drawings)
    return f'<div class="figures">{shown}</div>' if drawings else ""


def table(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Return a table; columns of numbers stand to the right, long texts are cut."""
    numeric = [
        any(row[column] != "" for row in rows) and all(_is_number(row[column]) for row in rows)
        for column in range(len(headings))
    ]
    lines = [_row("td", row, numeric) for row in rows]
    body = "\n".join(lines)
    return (
        f'<div class="scroll"><table><thead>{_row("th", headings, numeric)}</thead>'
        f"<tbody>\n{body}</tbody></table></div>"
    )


def _row(tag: str, values: Sequence[Cell], numeric: Sequence[bool]) -> str:
    kinds = [' class="number"' if number else "" for number in numeric]
    cells = "".join(
        f"<{tag}{kind}>{escape(_unbroken(text) if kind else text)}</{tag}>"
        for text, kind in zip(map(_shown, values), kinds, strict=True)
    )
    return f"<tr>{cells}</tr>"


def _unbroken(text: str) -> str:
    """Let a score with its interval break before the bracket only."""
    return text.replace(", ", ",\N{NO-BREAK SPACE}")


def _is_number(cell: Cell) -> bool:
    """Whether a cell is one, or opens like one: a score with its interval, an amount with its unit; or is empty."""
    return cell == "" or not isinstance(cell, str) or cell.lstrip("+-<")[:1].isdigit()


def _shown(value: Cell) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = f"{value:,}" if isinstance(value, int) else " ".join(value.split())
    return text if len(text) <= TEXT_LENGTH else text[:TEXT_LENGTH] + "..."
