"""Draw the picture of the README from the figures of docs/measured.md.

    python scripts/plot_results.py

Reads docs/images/results.json and writes docs/images/results.svg beside it. The picture follows the reader's light or dark
setting and has a background of its own, so it can be read on any page.
"""

import json
from html import escape
from pathlib import Path
from typing import Any

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
WIDTH, ROW, HEAD, LEFT = 880, 52, 66, 24
PANEL = WIDTH // 2
STYLE = """
  .page { fill: #ffffff; stroke: #d0d7de } text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-size: 15px; font-weight: 600 } .small { font-size: 11.5px; fill: #59636e }
  .track { stroke: #d0d7de } .one { fill: #8c959f } .two { fill: #3f51b5 } .line { stroke: #3f51b5 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #3d444d } text { fill: #f0f6fc } .small { fill: #9198a1 }
    .track { stroke: #3d444d } .one { fill: #9198a1 } .two { fill: #8c9eff } .line { stroke: #8c9eff }
  }
"""
LOWEST, HIGHEST, FASTEST = 0.45, 0.90, 5.5


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """Return a line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def dumbbell(row: dict[str, Any], y: float) -> list[str]:
    """Return two points on a scale of quality, joined by a line."""
    width = PANEL - 2 * LEFT
    places = [LEFT + width * (row[key] - LOWEST) / (HIGHEST - LOWEST) for key in ("from", "to")]
    return [
        text(LEFT, y, row["what"]),
        text(LEFT + width, y, row["names"], "small", "end"),
        f'<line x1="{LEFT}" x2="{LEFT + width}" y1="{y + 18}" y2="{y + 18}" class="track"/>',
        f'<line x1="{places[0]:.1f}" x2="{places[1]:.1f}" y1="{y + 18}" y2="{y + 18}" class="line" stroke-width="3"/>',
        f'<circle cx="{places[0]:.1f}" cy="{y + 18}" r="5" class="one"/>',
        f'<circle cx="{places[1]:.1f}" cy="{y + 18}" r="5" class="two"/>',
        text(places[0] - 9, y + 22, f"{row['from']:.3f}", "small", "end"),
        text(places[1] + 9, y + 22, f"{row['to']:.3f}", "small"),
    ]


def bars(row: dict[str, Any], y: float) -> list[str]:
    """Return two bars of speed-ups."""
    left, width = PANEL + LEFT, PANEL - 2 * LEFT - 40
    parts = [text(left, y, row["what"]), text(PANEL * 2 - LEFT, y, row["against"], "small", "end")]
    for number, (key, kind) in enumerate((("float32", "one"), ("bf16", "two"))):
        length, top = width * row[key] / FASTEST, y + 7 + 13 * number
        parts.append(
            f'<rect x="{left}" y="{top}" width="{length:.1f}" height="10" rx="2" class="{kind}"/>'
        )
        parts.append(text(left + length + 6, top + 9, f"{row[key]:.1f}x", "small"))
    return parts


def legend(x: float, y: float, names: tuple[str, str]) -> list[str]:
    """Return the names of the two colours, from the right."""
    parts = []
    for kind, name in zip(("two", "one"), reversed(names), strict=True):
        parts.append(text(x, y, name, "small", "end"))
        x -= 7 * len(name) + 8
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="5" class="{kind}"/>')
        x -= 14
    return parts


def picture(results: dict[str, list[dict[str, Any]]]) -> str:
    """Return the whole picture as SVG."""
    height = HEAD + ROW * max(map(len, results.values())) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>Quality before and after, and speed beside other libraries</title>",
        f"<style>{STYLE}</style>",
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8" class="page"/>',
        text(LEFT, 30, "Quality, nDCG@10", "title"),
        *legend(PANEL - LEFT, 30, ("without", "with")),
        text(PANEL + LEFT, 30, "Speed, times as fast", "title"),
        *legend(WIDTH - LEFT, 30, ("float32", "bf16")),
    ]
    for draw, name in ((dumbbell, "quality"), (bars, "speed")):
        for number, row in enumerate(results[name]):
            parts += draw(row, HEAD + ROW * number)
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Write the picture."""
    results = json.loads((IMAGES / "results.json").read_text(encoding="utf-8"))
    (IMAGES / "results.svg").write_text(picture(results), encoding="utf-8")


if __name__ == "__main__":
    main()
