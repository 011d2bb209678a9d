"""The parts of a fit's page about its data: what the filters took, and twenty rows to look at."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embedtrain.data.readers.text_lines import read_lines
from embedtrain.evaluation.results.page import Cell, Section, paragraph, table
from embedtrain.evaluation.results.wording import counted
from embedtrain.files import read_json
from embedtrain.workflows.stages import Stage

SHOWN = 20
"""Rows on the page."""


def data_sections(output: Path, stages: Sequence[Stage]) -> list[Section]:
    """Show how the training data came about."""
    sections: list[Section] = []
    for stage in stages:
        folder = output / stage.name
        report = read_json(folder / "report.json", optional=True)
        if stage.hold_out is not None and report:
            sections.append(("Data", [paragraph(_divided(report))]))
        if (stage.hold_out is not None or stage.kind == "synth") and folder.is_dir():
            sections += _rows(folder / "train.jsonl")
    return sections


def _divided(report: Mapping[str, Any]) -> str:
    asked = report["queries"]
    return (
        f"{counted(report['rows'], 'row')} of {counted(asked['train'], 'query', 'queries')} train; {asked['dev']:,} "
        f"queries choose and {asked['test']:,} decide, and none of their answers trains. All search among "
        f"{counted(report['documents'], 'document')}."
    )


def waterfall(counts: Mapping[str, int], written: int) -> str:
    """List what each filter took, from what was written to what is left."""
    rows: list[Sequence[Cell]] = [("written", written, "")]
    left = written
    for name, taken in counts.items():
        left -= taken
        rows.append((name, -taken, left))
    return table(("filter", "queries", "left"), rows)


def _rows(path: Path) -> list[Section]:
    """Show rows drawn by the hash of their query."""
    if not path.is_file():
        return []
    found: list[tuple[bytes, dict[str, Any]]] = []
    for _, _, line in read_lines(path):
        if line.isspace():
            continue
        row = json.loads(line)
        mark = hashlib.blake2b(str(row["query"]).encode(), digest_size=8).digest()
        found.append((mark, row))
        if len(found) > 50 * SHOWN:
            found = sorted(found, key=lambda one: one[0])[:SHOWN]
    drawn = [row for _, row in sorted(found, key=lambda one: one[0])[:SHOWN]]
    if not drawn:
        return []
    makers = any("maker" in row for row in drawn)
    headings = ["query", "what answers it", *(["made of"] if makers else [])]
    cells = [
        [
            str(row["query"]),
            _first(row["positive"]),
            *([str(row.get("maker", ""))] if makers else []),
        ]
        for row in drawn
    ]
    note = paragraph(
        f"{len(drawn)} of the rows that trained, drawn at random: would people ask so?"
    )
    return [("Rows to look at", [note, table(headings, cells)])]


def _first(positive: str | list[str]) -> str:
    return positive if isinstance(positive, str) else positive[0]
