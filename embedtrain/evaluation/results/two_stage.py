"""What a second stage did to the results of a first: facts for the file, tables and words for people."""

from collections.abc import Mapping
from statistics import fmean

from rich import box
from rich.markup import escape
from rich.table import Table

from embedtrain.evaluation.measures.metrics import PerQuery, mean_scores
from embedtrain.evaluation.measures.statistics import holm_correction
from embedtrain.evaluation.results.result import (
    Depth,
    EvaluatedModel,
    EvaluationResult,
    PairCost,
    TwoStage,
)
from embedtrain.evaluation.results.wording import (
    counted,
    describe_place,
    metric_title,
    show_difference,
    show_p_value,
)
from embedtrain.units import show_seconds

WORST = 3
"""Queries that lost most, named in the file."""


def describe_stages(
    first: EvaluatedModel,
    second: EvaluatedModel,
    baseline: EvaluationResult,
    by_depth: Mapping[int, EvaluationResult],
    ceiling: PerQuery,
    reachable: Mapping[str, bool],
    seconds: Mapping[int, float | None],
    cost: PairCost | None,
) -> TwoStage:
    """Put together what two stages did.

    Args:
        first: What found the results.
        second: What ordered them anew.
        baseline: The first stage alone.
        by_depth: The result at each depth, in rising order, each compared with ``baseline``.
        ceiling: Scores of the best order of the results of the last depth.
        reachable: Whether a query has a relevant document among them.
        seconds: Time of a query at each depth, both stages, where it is known.
        cost: What scoring them took.
    """
    top, result = list(by_depth.items())[-1]
    main = next(iter(result.metrics))
    before = baseline.per_query[main]
    changed = {query: value - before[query] for query, value in result.per_query[main].items()}
    falls = sorted((change, query) for query, change in changed.items() if change < 0)
    reached = {
        name: {query: value for query, value in values.items() if reachable[query]}
        for name, values in result.per_query.items()
    }
    return TwoStage(
        first=first,
        second=second,
        top=top,
        baseline=baseline.metrics,
        ceiling=mean_scores(ceiling),
        reachable=fmean(reachable.values()),
        reachable_metrics=mean_scores(reached) if any(reachable.values()) else {},
        depths=_tell_depths(by_depth, main, seconds),
        better=sum(change > 0 for change in changed.values()),
        worse=len(falls),
        worst={query: change for change, query in falls[:WORST]},
        cost=cost,
    )


def _tell_depths(
    by_depth: Mapping[int, EvaluationResult], main: str, seconds: Mapping[int, float | None]
) -> list[Depth]:
    found = [one.comparison.metrics[main] for one in by_depth.values() if one.comparison]
    adjusted = holm_correction([one.p_value for one in found])
    return [
        Depth(
            depth=depth,
            metrics={name: one.value for name, one in result.metrics.items()},
            difference=difference,
            adjusted_p_value=p_value,
            seconds_per_query=seconds[depth],
        )
        for (depth, result), difference, p_value in zip(
            by_depth.items(), found, adjusted, strict=True
        )
    ]


def depth_table(stages: TwoStage, main: str, style: box.Box) -> Table:
    """Lay out the main metric and the time of a query at each depth, the first stage above."""
    title = metric_title(main)
    table = Table(
        "results ordered anew", box=style, caption=escape(". ".join(notes(stages, main))),
        caption_justify="left",
    )  # fmt: skip
    timed = any(one.seconds_per_query is not None for one in stages.depths)
    for heading in (title, "difference", "p (Holm)", *(["seconds per query"] if timed else [])):
        table.add_column(heading, justify="right")
    for row in depth_rows(stages, main):
        table.add_row(*row)
    return table


def depth_rows(stages: TwoStage, main: str) -> list[list[str]]:
    """Return a row for the first stage, each depth and the best order that was possible."""
    rows = [["none: the first stage", f"{stages.baseline[main].value:.3f}"]]
    for one in stages.depths:
        paired = one.difference
        shown = show_difference(paired.difference, paired.low, paired.high, paired.num)
        cells = [f"{one.depth:,}", f"{one.metrics[main]:.3f}", shown]
        cells.append(show_p_value(one.adjusted_p_value))
        if one.seconds_per_query is not None:
            cells.append(show_seconds(one.seconds_per_query))
        rows.append(cells)
    best = f"{stages.ceiling[main]:.3f}"
    return [*rows, [f"{stages.top:,}, in the best order", best]]


def notes(stages: TwoStage, main: str) -> list[str]:
    """Say what stands behind the figures: queries out of reach, queries that lost, the price of pairs."""
    said = [
        f"{stages.reachable:.1%} of the queries have a relevant document among the {stages.top:,}"
    ]
    if stages.reachable_metrics:
        said[0] += f", {metric_title(main)} of those {stages.reachable_metrics[main]:.3f}"
    better, worse = (counted(one, "query", "queries") for one in (stages.better, stages.worse))
    said.append(f"{better} better than before, {worse} worse")
    cost = stages.cost
    if cost is None:
        return said
    speed = f"{cost.pairs_per_second:,.1f} pairs/s"
    if cost.tokens_per_pair:
        speed += f" of {cost.tokens_per_pair:,.0f} tokens, {cost.padding:.1%} padding"
    said.append(
        f"{speed}, {cost.cut_documents:.1%} of the pairs cut, on {describe_place(cost.machine)}"
    )
    if cost.num_scored < cost.num_pairs:
        said.append(
            f"{cost.num_pairs - cost.num_scored:,} of {cost.num_pairs:,} pairs known before"
        )
    if cost.price_per_thousand_queries is not None:
        said.append(f"a thousand queries cost {cost.price_per_thousand_queries:,.2f}")
    return said


def quality_by_seconds(
    stages: TwoStage, main: str, first_seconds: float
) -> list[tuple[float, float]]:
    """Return the points of quality against seconds per query, the first stage before the depths."""
    points = [
        (one.seconds_per_query, one.metrics[main])
        for one in stages.depths
        if one.seconds_per_query is not None
    ]
    return [(first_seconds, stages.baseline[main].value), *points] if points else []
