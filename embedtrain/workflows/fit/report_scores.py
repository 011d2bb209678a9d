"""The parts of a fit's page about scores: before and after, and the queries that changed most."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.sources import load_task
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.gain import FEW_QUERIES, widened
from embedtrain.evaluation.results.page import Cell, Section, figures, heading, paragraph, table
from embedtrain.evaluation.results.plots import draw_scores
from embedtrain.evaluation.results.result import EvaluationResult, load_result
from embedtrain.evaluation.results.wording import (
    counted,
    describe_data,
    describe_few,
    metric_title,
    show_interval,
    show_paired,
)
from embedtrain.workflows.evaluate.report_queries import find_changes
from embedtrain.workflows.evaluate.report_sections import change_sections
from embedtrain.workflows.gate import GateStage, Judged, measured_by, parts_searched, small_folder
from embedtrain.workflows.gate_parts import NEW, SEEN
from embedtrain.workflows.stages import Stage

START, TRAINED = "start", "trained"
SYNTHETIC_NOTE = (
    "Synthetic: a program wrote these queries from the documents. They compare two models of one collection, and do not "
    "say how people's queries fare."
)
SEARCHED = (
    "Searched were {documents:,} of {of:,} documents, all that answer a query among them: the budget allows no "
    "more.{others} Among fewer documents scores are higher; the difference compares both models on the same."
)
ROLES = {"test": "What decided", "also": "Measured besides", "guard": "What must not be forgotten"}


def can_draw() -> bool:
    """Whether pictures can be drawn: a fit must not fail at its end for want of a library."""
    return find_spec("matplotlib") is not None


def score_parts(output: Path, gates: Sequence[Stage]) -> list[Section]:
    """Show what both models score, one table for each piece of data: human and synthetic never share a column."""
    pieces = []
    for stage, part, judged in _parts(gates):
        found = _both(output / stage.name / part)
        if found is None:
            continue
        before, after = found
        mark = " (synthetic)" if judged.synthetic else ""
        pieces.append(heading(f"{ROLES[part.partition('-')[0]]}: {_named(after, judged)}"))
        if part == "test" and can_draw():
            systems = {f"{START}{mark}": before, f"{TRAINED}{mark}": after}
            pieces.append(figures([draw_scores(systems, f"{START}{mark}")]))
        pieces += [_table(before, after, mark), *_notes(after, judged)]
        if searched := parts_searched(_gate(stage), output / stage.name).get(part):
            rivals = " The others are what BM25 finds for the queries." * (
                _gate(stage).others == "bm25"
            )
            pieces.append(paragraph(SEARCHED.format(**searched, others=rivals)))
    return [("Before and after", pieces)] if pieces else []


def _parts(gates: Sequence[Stage]) -> list[tuple[Stage, str, Judged]]:
    return [(stage, part, judged) for stage in gates for part, judged in measured_by(_gate(stage))]


def _gate(stage: Stage) -> GateStage:
    assert stage.gate is not None
    return stage.gate


def _both(folder: Path) -> tuple[EvaluationResult, EvaluationResult] | None:
    """Return the results before and after, where both are there: a refusal may have come first."""
    places = folder / "before.json", folder / "after.json"
    if not all(place.is_file() for place in places):
        return None
    return load_result(places[0]), load_result(places[1])


def _named(result: EvaluationResult, judged: Judged) -> str:
    kind = "synthetic queries" if judged.synthetic else "held-out queries"
    many = counted(result.data.num_queries, kind.replace("queries", "query"), kind)
    own = judged.path in ("stage:data", "stage:human")
    return many if own else f"{many} of {result.data.name}"


def _table(before: EvaluationResult, after: EvaluationResult, mark: str) -> str:
    headings = [f"{name}{mark}" for name in ("metric", START, TRAINED, "difference", "p")]
    rows: list[list[Cell]] = []
    for metric, interval in after.metrics.items():
        found = None if after.comparison is None else after.comparison.metrics.get(metric)
        paired = ("", "") if found is None else show_paired(widened(found))
        rows.append(
            [
                metric_title(metric),
                show_interval(before.metrics[metric]),
                show_interval(interval),
                *paired,
            ]
        )
    return table(headings, rows)


def _notes(result: EvaluationResult, judged: Judged) -> list[str]:
    few = describe_few(interval.num for interval in result.metrics.values())
    said = [f"{describe_data(result.data)}. In brackets: 95 % intervals{few}."]
    if result.data.num_queries < FEW_QUERIES:
        said.append(
            f"Those of differences are widened: fewer than {FEW_QUERIES} queries vary more than they show."
        )
    if judged.synthetic:
        said.append(SYNTHETIC_NOTE)
    return [paragraph(one) for one in said]


def by_answers(verdict: Mapping[str, Any]) -> list[str]:
    """Say how both kinds of queries fare, where documents that answer some of them trained and others did not."""
    found = verdict.get("by_answers", {})
    if len(found) < 2:
        return []
    words = {
        SEEN: "answered by a document that also answered a training query",
        NEW: "answered by documents that answered none",
    }
    said = [
        f"{gain['difference']:+.3f}{_bounds(gain)} on {counted(gain['num'], 'query', 'queries')} {words[name]}"
        for name, gain in found.items()
    ]
    return [f"The change: {'; '.join(said)}. Where documents are new, expect the second."]


def _bounds(gain: Mapping[str, Any]) -> str:
    return f" [{gain['low']:+.3f}, {gain['high']:+.3f}]" if "low" in gain else ""


def change_parts(output: Path, gates: Sequence[Stage]) -> list[Section]:
    """Show the queries that gained and lost most, of the data that decided."""
    sections: list[Section] = []
    for stage, part, judged in _parts(gates):
        found = _both(output / stage.name / part)
        if part != "test" or found is None:
            continue
        mark = " (synthetic)" if judged.synthetic else ""
        changes = find_changes(
            found[1], found[0], _task(judged, output / stage.name / part, output, found[1])
        )
        sections += change_sections(changes, f"{TRAINED}{mark}", f"{START}{mark}")
    return sections


def _task(
    judged: Judged, folder: Path, output: Path, result: EvaluationResult
) -> RetrievalTask | None:
    """Open what was measured on, if it is still there."""
    path = judged.path.removeprefix("stage:")
    place = str(output / path) if path != judged.path else path
    if (small := small_folder(judged, folder)).is_dir():
        place = str(small)
    try:
        task = load_task(place, judged.split)
    except UserError:
        return None
    return task if task.fingerprint == result.data.fingerprint else None
