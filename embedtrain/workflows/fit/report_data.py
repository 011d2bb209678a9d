"""The parts of a fit's page about its data: what the filters took, and twenty rows to look at."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from embedtrain.data.readers.text_lines import read_lines
from embedtrain.data.words import language_of
from embedtrain.evaluation.results.page import Cell, Section, paragraph, table
from embedtrain.evaluation.results.wording import counted
from embedtrain.files import read_json
from embedtrain.workflows.stages import Stage

LOOKED_AT = 2_000
"""Chunks whose language is looked at."""
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
        if stage.judge is not None and report:
            sections.append(("What the reranker said", [paragraph(_judged(report))]))
        if stage.synth is not None and "waterfall" in report:
            sections += _made(report, folder)
        if (stage.hold_out is not None or stage.kind == "synth") and folder.is_dir():
            sections += _rows(folder / "train.jsonl")
    return sections


def _divided(report: Mapping[str, Any]) -> str:
    asked = report["queries"]
    apart = report.get("rows_apart", {})
    left_out = f" Rows left out for people's queries: {sum(apart.values()):,}." if apart else ""
    choose = f"{asked['dev']:,} queries choose and " if asked.get("dev") else ""
    known = (
        "Documents that answer them may have trained with other queries."
        if report.get("by") == "query"
        else "None of their answers trains."
    )
    beside = report.get("documents_beside")
    also = "" if beside is None else f", {beside:,} of them from the corpus alone"
    return (
        f"{counted(report['rows'], 'row')} of {counted(asked['train'], 'query', 'queries')} train; {choose}"
        f"{counted(asked['test'], 'query decides', 'queries decide')}. {known} All search among "
        f"{counted(report['documents'], 'document')}{also}.{left_out}"
    )


def _judged(report: Mapping[str, Any]) -> str:
    done = report["actions"]
    listed = ", ".join(f"{count:,} {name}" for name, count in done.items())
    return (
        f"It read {sum(report['num_judged'].values()):,} pairs of a query and a text ({listed}); "
        f"{counted(report['num_dropped_rows'], 'row')} went, {counted(report['num_rows'], 'row')} are left. "
        f"{report['gate'].rstrip('.')}."
    )


def _made(report: Mapping[str, Any], folder: Path) -> list[Section]:
    """Show what was read and written, and what each filter took."""
    corpus, splits = report["corpus"], report["splits"]
    held = ", ".join(f"{found['queries']:,} in {name}" for name, found in splits.items())
    said = [
        f"{counted(corpus['documents'], 'document')}, {counted(corpus['chunks'], 'chunk')}; queries by {report['writer']}. "
        f"Synthetic queries that are kept: {held}. A document and its near copies are in one split.",
        *_reading(corpus["reading"]),
        *_languages(folder / "corpus.jsonl"),
        *report["notes"],
    ]
    pieces = [waterfall(report["waterfall"]["all"]), *map(paragraph, said)]
    return [("From documents to queries", pieces)]


def waterfall(counts: Mapping[str, int]) -> str:
    """List what each filter took of the synthetic queries, from what was written to what is kept."""
    rows: list[Sequence[Cell]] = []
    left = counts["written"]
    for name, count in counts.items():
        if name in ("written", "kept"):
            rows.append((name, count, count))
            continue
        left -= count
        rows.append((name.replace("_", " "), count, left))
    return table(("filter", "synthetic queries taken", "synthetic queries left"), rows)


def _reading(found: Mapping[str, Any]) -> list[str]:
    """Say which files are not in it."""
    said = []
    if found["skipped"]:
        listed = ", ".join(f"{count:,} {name}" for name, count in found["skipped"].items())
        said.append(f"Files that were not read: {listed}.")
    if found["pdf_pages_without_text"]:
        said.append(
            f"{found['pdf_pages_without_text']:,} of {found['pdf_pages']:,} PDF pages are pictures without text: "
            "recognise their text first (OCR) to have them searched."
        )
    return said


def _languages(corpus: Path) -> list[str]:
    """Say that there are several languages, where there are."""
    if not corpus.is_file():
        return []
    lines = islice(read_lines(corpus), LOOKED_AT)
    found = Counter(language_of(json.loads(line)["text"]) for _, _, line in lines)
    several = [
        name for name, count in found.most_common() if name and count >= 0.05 * found.total()
    ]
    if len(several) < 2:
        return []
    return [
        f"The documents are in several languages ({', '.join(several)}). Each query is in the language of its document, so "
        "nothing is learned about questions in one language for documents in another, and a model that knows one "
        "language only is the wrong start."
    ]


def _rows(path: Path) -> list[Section]:
    """Show rows drawn by the hash of their query; none where nothing was left to train on."""
    if not path.is_file() or path.stat().st_size == 0:
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
