"""What a second stage did to the results of a first: facts for the file, tables and words for people."""

from collections.abc import Mapping
from statistics import fmean

from rich import box
from rich.markup import escape
from rich.table import Table

from embedtrain.evaluation.measures.calibration import Calibration
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
    calibration: Calibration | None = None,
) -> TwoStage:
    """Put together what two stages did.

    Args:
        first: What found the results.
        second: What ordered them anew.
        baseline: The first stage alone.
        by_depth: The result at each depth, in rising order, each compared with ``baseline``.
        ceiling: Scores of the best order of the results of the last depth.
        reachable: Whether a query has a relevant document among them.
        seconds: Time of a query at each depth, both stages, where it is known; of the first alone at depth 0.
        cost: What scoring them took.
        calibration: What the scores mean as probabilities.
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
        first_seconds=seconds[0],
        baseline=baseline.metrics,
        ceiling=mean_scores(ceiling),
        reachable=fmean(reachable.values()),
        reachable_metrics=mean_scores(reached) if any(reachable.values()) else {},
        depths=_tell_depths(by_depth, main, seconds),
        better=sum(change > 0 for change in changed.values()),
        worse=len(falls),
        worst={query: change for change, query in falls[:WORST]},
        cost=cost,
        calibration=calibration,
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
    caption = escape("; ".join(notes(stages, main)))
    headings, rows = depth_rows(stages, main)
    table = Table(headings[0], box=style, caption=caption, caption_justify="left")
    for heading in headings[1:]:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def depth_rows(stages: TwoStage, main: str) -> tuple[list[str], list[list[str]]]:
    """Return headings, and rows for the first stage, each depth and the best order that was possible."""
    rows = [["none: the first stage", f"{stages.baseline[main].value:.3f}", "", ""]]
    seconds = [stages.first_seconds]
    for one in stages.depths:
        paired = one.difference
        shown = show_difference(paired.difference, paired.low, paired.high, paired.num)
        p_value = show_p_value(one.adjusted_p_value)
        rows.append([f"{one.depth:,}", f"{one.metrics[main]:.3f}", shown, p_value])
        seconds.append(one.seconds_per_query)
    rows.append([f"{stages.top:,}, in the best order", f"{stages.ceiling[main]:.3f}", "", ""])
    headings = ["results ordered anew", metric_title(main), "difference", "p (Holm)"]
    if any(one is not None for one in seconds):
        headings.append("per query")
        times = ["" if one is None else show_seconds(one) for one in (*seconds, None)]
        rows = [[*row, time] for row, time in zip(rows, times, strict=True)]
    return headings, rows


def notes(stages: TwoStage, main: str) -> list[str]:
    """Say what stands behind the figures: queries out of reach, queries that lost, the price of pairs."""
    said = [
        f"{stages.reachable:.1%} of the queries have a relevant document among the {stages.top:,}"
    ]
    if stages.reachable_metrics:
        said[0] += f", {metric_title(main)} of those {stages.reachable_metrics[main]:.3f}"
    better, worse = (counted(one, "query", "queries") for one in (stages.better, stages.worse))
    said.append(f"{better} better than before, {worse} worse")
    if stages.calibration is not None:
        said.append(_probabilities(stages.calibration))
    cost = stages.cost
    if cost is None:
        return said
    speed = f"{cost.pairs_per_second:,.1f} pairs/s"
    if cost.tokens_per_pair is not None:
        speed += f" of {cost.tokens_per_pair:,.0f} tokens, {cost.padding:.1%} padding"
        speed += f", {cost.cut_documents:.1%} of the pairs cut"
    said.append(f"{speed}, on {describe_place(cost.machine)}")
    if cost.num_scored < cost.num_pairs:
        said.append(
            f"{cost.num_pairs - cost.num_scored:,} of {cost.num_pairs:,} pairs known before"
        )
    if cost.price_per_thousand_queries is not None:
        said.append(f"a thousand queries cost {cost.price_per_thousand_queries:,.2f}")
    return said


def _probabilities(found: Calibration) -> str:
    """Say how scores become probabilities, and what that mends."""
    sure = (
        "" if found.threshold is None else f", 9 of 10 are relevant from {found.threshold:.2f} on"
    )
    return (
        f"relevant with probability sigmoid({found.slope:.3g} score {found.intercept:+.3g}){sure}; calibration error "
        f"{found.error:.1%}, of sigmoid(score) {found.error_before:.1%}"
    )


def quality_by_seconds(stages: TwoStage, main: str) -> list[tuple[float, float]]:
    """Return points of quality against seconds per query, the first stage before the depths; none if untimed."""
    points = [(stages.first_seconds, stages.baseline[main].value)]
    points += [(one.seconds_per_query, one.metrics[main]) for one in stages.depths]
    return [(seconds, quality) for seconds, quality in points if seconds is not None]
