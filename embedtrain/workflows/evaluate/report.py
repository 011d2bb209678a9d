"""Workflow: results, and the run that made a model, become one HTML page with its JSON beside it."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from embedtrain.errors import UserError
from embedtrain.evaluation.measures.efficiency import Efficiency
from embedtrain.evaluation.results.comparison import system_names
from embedtrain.evaluation.results.page import page, paragraph, picture, table
from embedtrain.evaluation.results.pareto import LABELS, Cost, Point, load_points
from embedtrain.evaluation.results.plots import new_figure
from embedtrain.evaluation.results.report import compare, describe_ties
from embedtrain.evaluation.results.result import EvaluationResult, load_result, parse_result
from embedtrain.evaluation.tasks.discovery import open_task
from embedtrain.evaluation.tasks.retrieval import Retrieval
from embedtrain.files import check_file, write_file
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.workflows.evaluate.tasks import read_run

SHOWN = 15
"""Wins, losses and suspected errors that are listed."""
Section = tuple[str, list[str]]


@dataclass(frozen=True)
class Changed:
    """A query that a system answers better or worse than the baseline."""

    item: str
    text: str
    value: float
    baseline: float


@dataclass(frozen=True)
class Suspect:
    """A document without a judgment that scores above every judged positive: perhaps a missing label."""

    query: str
    document: str
    positive: str
    margin: float
    """How far it lies above the best positive, in scores of the model."""


def write_report(
    sources: Sequence[Path],
    output: Path,
    *,
    baseline: Path | None = None,
    data: str | None = None,
) -> Path:
    """Write a page about result files, or about a run folder, and ``.json`` of the same name beside it.

    Args:
        sources: Result files, the first is the one that queries are shown of; or one run folder.
        output: The page, ending in ``.html``.
        baseline: Result of another model on the same data, for wins and losses.
        data: The data of the first result, for the texts of its queries and documents.

    Raises:
        UserError: If a file cannot be used, or data is not what was measured.
    """
    run = RunFolder(sources[0])
    facts_file = _check_output(output, [*sources, *filter(None, [baseline]), run.evaluation])
    if run.is_run:
        title, sections, facts = _of_run(run)
        results = {} if "after" not in facts else {"after": parse_result(dict(facts["after"]))}
    else:
        names = system_names(sources)
        results = {name: load_result(path) for name, path in zip(names, sources, strict=True)}
        title, sections, facts = f"Evaluation of {names[0]}", [], {}
    sections += [_scores(name, result) for name, result in results.items()]
    if len(results) > 1:
        sections.append(_quality_and_cost(sources))
    if results:
        first = next(iter(results.values()))
        more, found = _queries(first, sources, baseline, data)
        sections += more
        facts |= found | {name: result.to_json() for name, result in results.items()}
    write_file(output, page(title, sections))
    write_file(facts_file, json.dumps(facts, indent=2) + "\n")
    return output


def _check_output(output: Path, read: Sequence[Path]) -> Path:
    """Refuse a page that cannot be written, or whose JSON would replace what is read; return the JSON's place."""
    if output.suffix != ".html":
        raise UserError("--output", "must end in .html", got=output.name, cure="Rename it")
    beside = output.with_suffix(".json")
    if beside.resolve() in {path.resolve() for path in read}:
        raise UserError(
            "--output", "would write its JSON over a result", got=output.name, cure="Rename it"
        )
    for path in (output, beside):
        check_file("--output", path)
    return beside


def _of_run(run: RunFolder) -> tuple[str, list[Section], dict[str, Any]]:
    """Show what a run recorded: its recipe's words, its curves, its scores."""
    recipe = run.recipe.read_text(encoding="utf-8")
    sections: list[Section] = []
    curves = _curves(run.metrics) if run.metrics.is_file() else {}
    for name, points in curves.items():
        figure, axes = new_figure(None, height=3.0)
        axes.plot([step for step, _ in points], [value for _, value in points])
        axes.set_xlabel("step")
        sections.append((name, [picture(figure, f"{name} over the steps of training")]))
    facts: dict[str, Any] = {"curves": curves}
    if run.evaluation.is_file():
        facts |= json.loads(run.evaluation.read_text(encoding="utf-8"))
    sections.append(("Recipe", [f"<pre>{escape(recipe)}</pre>"]))
    return f"Run {run.path.resolve().name}", sections, facts


def _curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Read the columns of losses and validation scores that a run logged."""
    curves: dict[str, list[tuple[int, float]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and (name.endswith("loss") or name.startswith("val/")):
                    curves.setdefault(name, []).append((int(float(row["step"])), float(value)))
    return curves


def _scores(name: str, result: EvaluationResult) -> Section:
    data = result.data
    rows = [
        (metric, interval.value, interval.low, interval.high)
        for metric, interval in result.metrics.items()
    ]
    pieces = [
        paragraph(
            f"{data.name} {data.split}, {data.task}: {data.num_queries:,} queries or items, fingerprint "
            f"{data.fingerprint[:16]}; 95 % bootstrap intervals"
        ),
        table(("metric", "value", "low", "high"), rows),
    ]
    if (overlap := result.train_overlap) is not None:
        pieces.append(
            paragraph(
                f"{overlap['equal_queries']:.1%} of the queries are among the training queries, "
                f"{overlap['queries_sharing_13_words']:.1%} share 13 words with one there"
            )
        )
    if result.ties is not None:
        pieces.append(paragraph(describe_ties(result.ties)))
    if (cost := result.efficiency) is not None:
        pieces += [
            paragraph(f"on {cost.machine.gpu or cost.machine.cpu}"),
            table(("cost", "value"), _costs(cost)),
        ]
    return f"Scores: {name}", pieces


def _costs(cost: Efficiency) -> list[tuple[str, float | int]]:
    """List every cost that was measured; older results lack some."""
    costs: list[tuple[str, float | int | None]] = [
        ("documents per second", cost.documents_per_second),
        ("seconds per query, median", cost.query_latency.p50_seconds),
        ("seconds per query, 95 %", cost.query_latency.p95_seconds),
        ("seconds per query, 99 %", cost.query_latency.p99_seconds),
        ("bytes per document", cost.bytes_per_document),
        ("bytes of the index", cost.index_bytes),
        ("bytes of memory, peak", cost.peak_memory_bytes),
    ]
    if (price := cost.price) is not None:
        costs += [
            ("price of an hour", price.per_hour),
            ("price of a million documents", price.per_million_documents),
            ("price of a million queries, one by one", price.per_million_queries),
        ]
    return [(name, value) for name, value in costs if value is not None]


def _quality_and_cost(sources: Sequence[Path]) -> Section:
    """Draw quality against each cost, and against the dimension where vectors were cut."""
    try:
        metric, points = load_points(sources)
    except UserError as error:
        return "Quality and cost", [paragraph(f"Not drawn: {error}")]
    pieces = [_drawn(points, metric, cost) for cost in LABELS]
    dims = [(load_result(path).model, point) for path, point in zip(sources, points, strict=True)]
    cut = sorted(
        (model.settings["dim"], point.quality)
        for model, point in dims
        if model and "dim" in model.settings
    )
    if cut:
        figure, axes = new_figure(None, height=3.0)
        axes.plot([dim for dim, _ in cut], [quality for _, quality in cut], "o-")
        axes.set_xlabel("dimensions kept")
        axes.set_ylabel(metric)
        pieces.append(picture(figure, "quality against dimensions"))
    return "Quality and cost", pieces


def _drawn(points: Sequence[Point], metric: str, cost: Cost) -> str:
    figure, axes = new_figure(None, height=3.2)
    for point in points:
        place = point.costs[cost], point.quality
        axes.plot(*([one] for one in place), "o", color="C0")
        axes.annotate(point.name, place, textcoords="offset points", xytext=(5, 4), fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel(LABELS[cost])
    axes.set_ylabel(metric)
    return picture(figure, f"quality against {LABELS[cost]}")


def _queries(
    result: EvaluationResult, sources: Sequence[Path], baseline: Path | None, data: str | None
) -> tuple[list[Section], dict[str, Any]]:
    """List wins and losses, and documents that look like missing labels."""
    sections: list[Section] = []
    facts: dict[str, Any] = {}
    task = None if data is None else open_task(data, result.data.split)
    if task is not None and task.data.fingerprint != result.data.fingerprint:
        raise UserError("--data", "is not what was measured", got=data, cure="Name the same files")
    if baseline is not None:
        others = [source for source in sources if source != baseline]
        *_, name = system_names([*others, baseline])
        changes = find_changes(result, load_result(baseline), {} if task is None else task.texts)
        for side, found in (("Wins", changes[:SHOWN]), ("Losses", changes[::-1][:SHOWN])):
            kept = [
                one
                for one in found
                if (one.value > one.baseline) == (side == "Wins") and one.value != one.baseline
            ]
            rows = [(one.item, one.text, one.value, one.baseline) for one in kept]
            headings = ("query", "text", "this model", name)
            sections.append((f"{side} over {name}", [table(headings, rows)]))
            facts[side.lower()] = [asdict(one) for one in kept]
    run = sources[0].with_suffix(".trec")
    if isinstance(task, Retrieval) and run.is_file():
        suspects = find_suspects(task, read_run(run))[:SHOWN]
        note = "Documents without a judgment that score above every document judged relevant."
        pairs = [(one.query, one.document, one.positive, one.margin) for one in suspects]
        headings = ("query", "document found", "document judged relevant", "margin")
        sections.append(("Suspected label errors", [paragraph(note), table(headings, pairs)]))
        facts["suspected_label_errors"] = [asdict(one) for one in suspects]
    return sections, facts


def find_changes(
    result: EvaluationResult, baseline: EvaluationResult, texts: dict[str, str]
) -> list[Changed]:
    """Return queries by how much better they are answered than by the baseline, largest gain first."""
    compare(result, baseline, "baseline", num_resamples=10)  # refuses what cannot be compared
    shared = [name for name in result.per_query if name in baseline.per_query]
    if not shared:
        return []
    ours, theirs = result.per_query[shared[0]], baseline.per_query[shared[0]]
    changes = [Changed(item, texts.get(item, ""), ours[item], theirs[item]) for item in ours]
    return sorted(changes, key=lambda one: (one.baseline - one.value, one.item))


def find_suspects(task: Retrieval, run: dict[str, dict[str, float]]) -> list[Suspect]:
    """Return unjudged documents that a model prefers to every positive, largest margin first."""
    data = task.task
    documents = dict(zip(data.document_ids, data.documents, strict=True))
    suspects = []
    for query, text in task.texts.items():
        found, judged = run.get(query, {}), data.qrels[query]
        positives = {one: found[one] for one in judged if judged[one] >= 1 and one in found}
        others = {one: score for one, score in found.items() if one not in judged}
        if not positives or not others:
            continue
        best, right = max(others, key=others.__getitem__), max(positives, key=positives.__getitem__)
        margin = others[best] - positives[right]
        if margin > 0:
            suspects.append(Suspect(text, documents[best], documents[right], margin))
    return sorted(suspects, key=lambda one: -one.margin)
