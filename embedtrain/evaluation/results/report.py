"""Results of evaluations: summarised, compared with a baseline, and shown as tables."""

import re
from collections.abc import Iterable, Mapping
from io import StringIO

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embedtrain.errors import UserError
from embedtrain.evaluation.measures.efficiency import Efficiency
from embedtrain.evaluation.measures.metrics import PerQuery, lower_is_better
from embedtrain.evaluation.measures.set_metrics import as_arrays, set_metric
from embedtrain.evaluation.measures.set_statistics import NUM_RESAMPLES as NUM_SET_RESAMPLES
from embedtrain.evaluation.measures.set_statistics import bootstrap_metric, compare_metric
from embedtrain.evaluation.measures.statistics import (
    NUM_RESAMPLES,
    Interval,
    PairedComparison,
    bootstrap_interval,
    compare_paired,
)
from embedtrain.evaluation.results.fusion import fusion_table
from embedtrain.evaluation.results.index_table import index_table
from embedtrain.evaluation.results.result import (
    BaselineComparison,
    EvaluatedData,
    EvaluatedModel,
    EvaluationResult,
    Predictions,
)
from embedtrain.evaluation.results.two_stage import depth_table
from embedtrain.evaluation.results.wording import (
    cost_rows,
    count_queries,
    describe_errors,
    describe_few,
    describe_overlap,
    describe_place,
    describe_ties,
    metric_title,
    show_interval,
    show_paired,
)


def summarise(
    per_query: PerQuery,
    data: EvaluatedData,
    *,
    model: EvaluatedModel | None = None,
    efficiency: Efficiency | None = None,
    predictions: Predictions | None = None,
    set_metrics: tuple[str, ...] = (),
    clusters: Mapping[str, str] | None = None,
    num_resamples: int = NUM_RESAMPLES,
) -> EvaluationResult:
    """Average the scores of the queries and add bootstrap intervals, by cluster where queries have one.

    ``set_metrics`` are computed from ``predictions`` and stand before the others.
    """
    metrics = {}
    if predictions is not None:
        metrics = _summarise_sets(predictions, set_metrics, clusters, num_resamples)
    for name, values in per_query.items():
        metrics[name] = bootstrap_interval(
            np.array(list(values.values()), dtype=np.float64),
            clusters=_labels(clusters, values),
            num_resamples=num_resamples,
        )
    return EvaluationResult(
        metrics=metrics,
        data=data,
        model=model,
        efficiency=efficiency,
        per_query=per_query,
        predictions=predictions,
        clusters=None if clusters is None else dict(clusters),
    )


def _summarise_sets(
    predictions: Predictions,
    names: tuple[str, ...],
    clusters: Mapping[str, str] | None,
    num_resamples: int,
) -> dict[str, Interval]:
    items = list(predictions.predicted)
    arrays = as_arrays(predictions.predicted, predictions.expected, items)
    return {
        name: bootstrap_metric(
            set_metric(name, *arrays),
            len(items),
            clusters=_labels(clusters, items),
            num_resamples=min(num_resamples, NUM_SET_RESAMPLES),
        )
        for name in names
    }


def compare(
    result: EvaluationResult,
    baseline: EvaluationResult,
    baseline_name: str,
    *,
    num_resamples: int = NUM_RESAMPLES,
) -> EvaluationResult:
    """Add a paired comparison with a baseline that was measured on the same data and queries.

    Queries are drawn in the clusters that the result was summarised with, if any.
    """
    _check_comparable(result, baseline, baseline_name)
    comparisons = {}
    for name in result.metrics:
        if name in result.per_query and name in baseline.per_query:
            values = result.per_query[name]
            before = [baseline.per_query[name][query] for query in values]
            pair = list(values.values()), before
            better, worse = reversed(pair) if lower_is_better(name) else pair
            comparisons[name] = compare_paired(
                np.array(better, dtype=np.float64),
                np.array(worse, dtype=np.float64),
                clusters=_labels(result.clusters, values),
                num_resamples=num_resamples,
            )
        elif name in baseline.metrics:
            comparisons[name] = _compare_sets(name, result, baseline, num_resamples)
    comparison = BaselineComparison(baseline=baseline_name, metrics=comparisons)
    return result.model_copy(update={"comparison": comparison})


def _compare_sets(
    name: str, result: EvaluationResult, baseline: EvaluationResult, num_resamples: int
) -> PairedComparison:
    assert result.predictions is not None
    assert baseline.predictions is not None
    items = list(result.predictions.predicted)
    score, reference = (
        set_metric(name, *as_arrays(one.predicted, result.predictions.expected, items))
        for one in (result.predictions, baseline.predictions)
    )
    return compare_metric(
        score,
        reference,
        len(items),
        clusters=_labels(result.clusters, items),
        num_resamples=min(num_resamples, NUM_SET_RESAMPLES),
    )


def _labels(clusters: Mapping[str, str] | None, items: Iterable[str]) -> list[str] | None:
    return None if clusters is None else [clusters[item] for item in items]


def refuse_single(num_queries: int, place: object) -> None:
    """Refuse a paired test on one query before the work starts.

    Raises:
        UserError: If there are fewer than two.
    """
    if num_queries < 2:
        cure = "Give more queries, or compare nothing"
        problem = "needs two queries or more: one shows no difference from chance"
        raise UserError(place, problem, got=num_queries, cure=cure)


def result_tables(result: EvaluationResult, *, markdown: bool = False) -> list[Table]:
    """Lay out a result for a rich console: one table of quality and, where measured, one of cost and one of the index."""
    style = box.MARKDOWN if markdown else box.SIMPLE_HEAD
    tables = [_quality_table(result, style)]
    if result.fusion is not None:
        tables.append(fusion_table(result.fusion, next(iter(result.metrics)), style))
    if result.two_stage is not None:
        tables.append(depth_table(result.two_stage, next(iter(result.metrics)), style))
    if result.efficiency is not None:
        tables.append(_efficiency_table(result.efficiency, style))
    if result.index is not None:
        tables.append(index_table(result.index, style))
    return tables


def render_text(result: EvaluationResult, *, markdown: bool = False) -> str:
    """Render a result as plain text or as Markdown tables, without colour."""
    rendered = []
    for table in result_tables(result, markdown=markdown):
        output = StringIO()
        Console(file=output, width=160, color_system=None).print(table)
        lines = [line.rstrip() for line in output.getvalue().splitlines()]
        text = "\n".join(line for line in lines if line)
        if markdown:  # else Markdown takes the caption for a row
            text = re.sub(r"\|\n(?!\|)", "|\n\n", text)
        rendered.append(text)
    return "\n\n".join(rendered) + "\n"


def _check_comparable(
    result: EvaluationResult, baseline: EvaluationResult, baseline_name: str
) -> None:
    if baseline.data.fingerprint != result.data.fingerprint:
        raise UserError(
            baseline_name,
            f"was measured on other data than {_describe(result.data)}",
            got=_describe(baseline.data),
            cure="Evaluate the baseline on the same data and split",
        )
    shared = [name for name in result.metrics if name in baseline.metrics]
    if not shared:
        raise UserError(
            baseline_name,
            "shares no metric with this result",
            got=", ".join(baseline.metrics),
            cure=f"Evaluate the baseline with {', '.join(result.metrics)}",
        )
    for name in shared:
        if odd := _items(result, name) ^ _items(baseline, name):
            raise UserError(
                baseline_name,
                f"was measured on other queries ({len(odd)} are in only one of the two)",
                got=min(odd),
                cure="Evaluate the baseline on the same data and split",
            )


def _items(result: EvaluationResult, name: str) -> set[str]:
    if name in result.per_query:
        return set(result.per_query[name])
    return set() if result.predictions is None else set(result.predictions.predicted)


def _describe(data: EvaluatedData) -> str:
    return f"{data.name} {data.split} (fingerprint {data.fingerprint[:12]})"


def _quality_table(result: EvaluationResult, style: box.Box) -> Table:
    caption = f"{count_queries(result.data)}; 95 % intervals in brackets"
    caption += describe_few(interval.num for interval in result.metrics.values())
    if result.train_overlap is not None:
        caption += f"; {describe_overlap(result.train_overlap)}"
    if result.ties is not None:
        caption += f"; {describe_ties(result.ties)}"
    headings = [escape(f"{result.data.name} {result.data.split}")]
    if result.comparison is not None:
        caption += f"; baseline: {escape(result.comparison.baseline)}"
        headings += ["baseline", "difference", "p"]
        caption += describe_errors(result.comparison.metrics)
    table = Table("metric", box=style, caption=caption, caption_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, interval in result.metrics.items():
        paired = result.comparison and result.comparison.metrics.get(name)
        compared = []
        if paired:
            gain = -paired.difference if lower_is_better(name) else paired.difference
            compared = [f"{interval.value - gain:.3f}", *show_paired(paired)]
        table.add_row(metric_title(name), show_interval(interval), *compared)
    return table


def _efficiency_table(efficiency: Efficiency, style: box.Box) -> Table:
    caption = f"on {escape(describe_place(efficiency.machine))}"
    table = Table("cost", box=style, caption=caption, caption_justify="left")
    table.add_column("", justify="right")
    for name, value in cost_rows(efficiency).items():
        table.add_row(name, value)
    return table
