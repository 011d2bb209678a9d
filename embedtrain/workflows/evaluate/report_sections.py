"""The parts of a report's page: what one came for, scores, costs, queries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from embedtrain.evaluation.results.fusion import fusion_notes, fusion_rows, part_names
from embedtrain.evaluation.results.page import (
    Cell,
    Section,
    figures,
    heading,
    paragraph,
    table,
)
from embedtrain.evaluation.results.pareto import LABELS, as_point, draw_pareto
from embedtrain.evaluation.results.plots import draw_curve, draw_scores
from embedtrain.evaluation.results.report import compare
from embedtrain.evaluation.results.result import EvaluationResult
from embedtrain.evaluation.results.two_stage import depth_rows, notes, quality_by_seconds
from embedtrain.evaluation.results.wording import (
    cost_rows,
    count_queries,
    counted,
    describe_data,
    describe_few,
    describe_gain,
    describe_overlap,
    describe_place,
    describe_ties,
    metric_title,
    show_interval,
    show_paired,
)
from embedtrain.workflows.evaluate.report_queries import Changed, Suspect, wins_and_losses

BEFORE, AFTER = "before training", "after training"
SHOWN = 8
"""Wins, losses and suspected errors on the page."""


@dataclass(frozen=True)
class Subject:
    """What a page is about: one system, and those beside it."""

    name: str
    systems: Mapping[str, EvaluationResult]
    """By the name that people read; the baseline, if there is one, first among those on the same data."""
    baseline: str | None = None
    """A name of ``systems``, or words for one that is known by its comparison only."""
    whose: str = ""
    """Words for whose score the baseline's is."""

    @property
    def result(self) -> EvaluationResult:
        """What the page opens with."""
        return self.systems[self.name]

    def groups(self) -> list[dict[str, EvaluationResult]]:
        """Return the systems by the data that they were measured on, the subject's own data first."""
        marks = [
            self.result.data.fingerprint,
            *(one.data.fingerprint for one in self.systems.values()),
        ]
        return [
            {name: one for name, one in self.systems.items() if one.data.fingerprint == mark}
            for mark in dict.fromkeys(marks)
        ]


def lead(subject: Subject) -> Section:
    """Say in one sentence what was found."""
    result = subject.result
    data = f"{result.data.name} ({result.data.split}, {count_queries(result.data)})"
    if result.comparison is not None and result.comparison.metrics:
        metric = next(iter(result.comparison.metrics))
        return "", [
            paragraph(f"{describe_gain(result, metric, subject.whose)}. On {data}.", "lead")
        ]
    metric, *_ = result.metrics
    group = {name: one for name, one in subject.groups()[0].items() if metric in one.metrics}
    best = sorted(group, key=lambda name: -group[name].metrics[metric].value)
    scores = "; ".join(f"{name} {show_interval(group[name].metrics[metric])}" for name in best)
    return "", [paragraph(f"{metric_title(metric)} on {data}: {scores}.", "lead")]


def score_section(subject: Subject) -> Section:
    """Draw and list the scores on each piece of data."""
    pieces, groups = [], subject.groups()
    for group in groups:
        name = subject.name if subject.name in group else next(iter(group))
        result = group[name]
        if len(groups) > 1:
            pieces.append(heading(f"{result.data.name} {result.data.split}"))
        pieces += [
            figures([draw_scores(group, subject.baseline)]),
            _score_table(subject, group, result),
        ]
        if result.train_overlap is not None:
            pieces.append(paragraph(f"{describe_overlap(result.train_overlap)}."))
        pieces += [
            paragraph(f"{name}: {describe_ties(one.ties)}.")
            for name, one in group.items()
            if one.ties
        ]
        few = describe_few(interval.num for interval in result.metrics.values())
        pieces.append(paragraph(f"{describe_data(result.data)}. In brackets: 95 % intervals{few}."))
    return "Scores", pieces


def _score_table(
    subject: Subject, group: Mapping[str, EvaluationResult], result: EvaluationResult
) -> str:
    """List the metrics of systems; where there are two, with the difference, else with that of each below."""
    comparison = result.comparison if subject.name in group else None
    alone = comparison is not None and subject.baseline not in group
    names = [subject.baseline or "", *group] if alone else list(group)
    paired = comparison is not None and len(names) == 2
    rows = []
    for metric, interval in result.metrics.items():
        cells = [
            show_interval(one.metrics[metric]) if metric in one.metrics else ""
            for one in group.values()
        ]
        found = None if comparison is None else comparison.metrics.get(metric)
        if alone:
            cells.insert(0, "" if found is None else f"{interval.value - found.difference:.3f}")
        if paired:
            cells += ["", ""] if found is None else show_paired(found)
        rows.append([metric_title(metric), *cells])
    shown = table(["metric", *names, *(["difference", "p"] if paired else [])], rows)
    if comparison is None or paired:
        return shown
    return shown + _differences(subject, group, next(iter(comparison.metrics)))


def _differences(subject: Subject, group: Mapping[str, EvaluationResult], metric: str) -> str:
    """List how each system differs from the baseline in the main metric."""
    assert subject.baseline is not None
    rows = []
    for name, result in group.items():
        if subject.baseline in group and name != subject.baseline:
            found = compare(result, group[subject.baseline], subject.baseline).comparison
            assert found is not None
            if metric in found.metrics:
                rows.append([name, *show_paired(found.metrics[metric])])
    title = f"{metric_title(metric)} minus that of {subject.baseline}"
    return table(["system", title, "p"], rows) if rows else ""


def cost_section(subject: Subject) -> list[Section]:
    """List what the systems cost, and draw quality against each cost where they can be compared."""
    group = {name: one for name, one in subject.groups()[0].items() if one.efficiency is not None}
    if subject.whose == BEFORE:  # the same model, so the same cost
        group = {name: group[name] for name in group if name == subject.name}
    costs = {name: one.efficiency for name, one in group.items() if one.efficiency is not None}
    if not costs:
        return []
    rows = {name: cost_rows(cost) for name, cost in costs.items()}
    kinds = dict.fromkeys(kind for one in rows.values() for kind in one)
    listed = [[kind, *(one.get(kind, "") for one in rows.values())] for kind in kinds]
    places = {describe_place(cost.machine): name for name, cost in costs.items()}
    pieces = [table(["cost", *costs], listed)]
    pieces += [paragraph(f"Measured on {place}.") for place in places]
    metric = next(iter(subject.result.metrics))
    if len(group) > 1 and all(metric in one.metrics for one in group.values()):
        points = [as_point(name, one, metric) for name, one in group.items()]
        told = [cost for cost in LABELS if len({point.costs[cost] for point in points}) > 1]
        pieces.append(figures([draw_pareto(points, metric, cost) for cost in told]))
        pieces.append(paragraph("On the line: beaten by none on both quality and this cost."))
    return [("Cost", pieces), *_dimensions(group, metric)]


def fusion_section(subject: Subject) -> list[Section]:
    """Draw and list the systems whose results became one, and what that gained over each."""
    fusion = subject.result.fusion
    if fusion is None:
        return []
    main = next(iter(subject.result.metrics))
    headings, rows = fusion_rows(fusion, main)
    fused = "fused" if subject.result.two_stage is None else "fused and ordered anew"
    drawn = {
        name: subject.result.model_copy(update={"metrics": part.metrics})
        for name, part in zip(part_names(fusion), fusion.parts, strict=True)
    }
    pieces = [
        figures([draw_scores({fused: subject.result, **drawn}, None)]),
        table(headings, rows),
        paragraph(f"{'; '.join(fusion_notes(fusion, main))}."),
    ]
    return [("Systems fused", pieces)]


def depth_section(subject: Subject) -> list[Section]:
    """List what ordering the first results anew gave at each depth, and draw quality against time."""
    stages = subject.result.two_stage
    if stages is None:
        return []
    main = next(iter(subject.result.metrics))
    headings, rows = depth_rows(stages, main)
    pieces = [table(headings, rows), paragraph(f"{'; '.join(notes(stages, main))}.")]
    if len(points := quality_by_seconds(stages, main)) > 1:
        pieces.insert(0, figures([draw_curve(points, metric_title(main), "seconds per query")]))
    return [("Results ordered anew", pieces)]


def _dimensions(group: Mapping[str, EvaluationResult], metric: str) -> list[Section]:
    """Draw quality against the dimension, where vectors were cut to several."""
    cut = sorted(
        (float(one.model.settings["dim"]), one.metrics[metric].value)
        for one in group.values()
        if one.model and "dim" in one.model.settings and metric in one.metrics
    )
    if len(cut) < 2:
        return []
    drawing = draw_curve(cut, metric_title(metric), "dimensions kept")
    return [("Quality against dimensions", [figures([drawing])])]


def change_sections(changes: Sequence[Changed], name: str, baseline: str) -> list[Section]:
    """Show which queries a system answers better and worse than the baseline."""
    wins, losses = wins_and_losses(changes)
    if not changes:
        return []
    same = len(changes) - len(wins) - len(losses)
    pieces = [
        paragraph(
            f"Compared with {baseline}, better on {counted(len(wins), 'query', 'queries')}, worse on "
            f"{len(losses):,} and equal on {same:,}."
        )
    ]
    for title, found in ((f"Better than {baseline}", wins), (f"Worse than {baseline}", losses)):
        if found:
            pieces += [heading(title), _change_table(found[:SHOWN], name, baseline)]
    return [("Queries", pieces)]


def _change_table(found: Sequence[Changed], name: str, baseline: str) -> str:
    answered = any(one.document for one in found)
    rows: list[list[Cell]] = [
        [one.text or one.item, *([one.document] if answered else []), one.baseline, one.value]
        for one in found
    ]
    return table(["query", *(["right document"] if answered else []), baseline, name], rows)


def suspect_section(suspects: Sequence[Suspect]) -> list[Section]:
    """Show documents that may be missing a judgment."""
    if not suspects:
        return []
    note = "Documents without a judgment that score above every document judged relevant."
    rows = [(one.query, one.document, one.positive, one.margin) for one in suspects[:SHOWN]]
    headings = ("query", "document found", "document judged relevant", "margin")
    return [("Suspected label errors", [paragraph(note), table(headings, rows)])]
