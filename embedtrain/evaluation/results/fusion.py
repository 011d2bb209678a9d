"""What became of the results of several systems in one list: facts for the file, tables and words for people."""

from collections.abc import Mapping, Sequence

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from embedtrain.evaluation.measures.efficiency import Efficiency
from embedtrain.evaluation.measures.statistics import compare_paired, holm_correction
from embedtrain.evaluation.results.result import (
    EvaluationResult,
    FusedPart,
    FusedSystems,
    Tuning,
)
from embedtrain.evaluation.results.wording import (
    metric_title,
    model_name,
    show_difference,
    show_interval,
    show_p_value,
    system_name,
)
from embedtrain.units import show_seconds

WEAK = 0.05
"""Below such a probability of chance a system counts as weaker than another."""
FOUND = "recall_at_10"
"""Above 0 where a relevant document is among the first ten."""


def describe_parts(
    fused: EvaluationResult,
    alone: Sequence[EvaluationResult],
    compared: Sequence[EvaluationResult],
    recalls: Sequence[Mapping[str, float]],
    costs: Sequence[Efficiency | None],
) -> tuple[list[FusedPart], float]:
    """Put together what each system gives by itself and to the fusion, and what share of the queries any answers.

    Args:
        fused: The fusion.
        alone: Each system by itself.
        compared: ``fused``, compared with each of them.
        recalls: Of each system, recall@10 of each query.
        costs: Of each system, where it was timed.
    """
    main = next(iter(fused.metrics))
    tests = [one.comparison.metrics[main] for one in compared if one.comparison is not None]
    adjusted = holm_correction([one.p_value for one in tests])
    queries = list(fused.per_query[main])
    num_found = {query: sum(own[query] > 0 for own in recalls) for query in queries}
    best = max(alone, key=lambda one: one.metrics[main].value)
    parts = []
    for own, test, p_value, recall, cost in zip(
        alone, tests, adjusted, recalls, costs, strict=True
    ):
        assert own.model is not None
        changes = [fused.per_query[main][query] - own.per_query[main][query] for query in queries]
        only = sum(recall[query] > 0 and num_found[query] == 1 for query in queries)
        parts.append(
            FusedPart(
                model=own.model,
                metrics=own.metrics,
                difference=test,
                adjusted_p_value=p_value,
                better=sum(one > 0 for one in changes),
                worse=sum(one < 0 for one in changes),
                alone=only / len(queries),
                below_best=None if own is best else _chance(own, best, main),
                seconds_per_query=None if cost is None else cost.query_latency.mean_seconds,
                bytes_per_document=None if cost is None else cost.bytes_per_document,
            )
        )
    return parts, sum(one > 0 for one in num_found.values()) / len(queries)


def fusion_table(fusion: FusedSystems, main: str, style: box.Box) -> Table:
    """Lay out each system's main metric, and what the fusion gains over it."""
    caption = escape("; ".join(fusion_notes(fusion, main)))
    headings, rows = fusion_rows(fusion, main)
    table = Table(headings[0], box=style, caption=caption, caption_justify="left")
    for heading in headings[1:]:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def fusion_rows(fusion: FusedSystems, main: str) -> tuple[list[str], list[list[str]]]:
    """Return headings, and a row for each system."""
    headings = ["fused", metric_title(main), "gain", "p (Holm)", "+/-", "alone"]
    weights = fusion.weights
    if weights is None and fusion.tuning is not None:
        weights = [sum(one) / len(one) for one in zip(*fusion.tuning.folds, strict=True)]
    if weights is not None and len(set(weights)) == 1:
        weights = None
    if weights is not None:
        headings.append("weight")
    rows, names = [], part_names(fusion)
    for number, part in enumerate(fusion.parts):
        test = part.difference
        row = [
            names[number],
            show_interval(part.metrics[main]),
            show_difference(test.difference, test.low, test.high, test.num),
            show_p_value(part.adjusted_p_value),
            f"{part.better}/{part.worse}",
            f"{part.alone:.1%}",
        ]
        rows.append([*row, f"{weights[number]:.3g}"] if weights is not None else row)
    return headings, rows


def part_names(fusion: FusedSystems) -> list[str]:
    """Name the systems, with their settings where a name alone stands for two."""
    names = [model_name(part.model.name) for part in fusion.parts]
    if len(set(names)) < len(names):
        names = [system_name(part.model) for part in fusion.parts]
    return names


def fusion_notes(fusion: FusedSystems, main: str) -> list[str]:
    """Say by what rule and weights, and what that leaves to be wished."""
    said = [
        f"fused by {fusion.rule}, {fusion.depth:,} results of each",
        "gain: the fusion's over that system, queries that rose and fell",
        f"{fusion.together:.1%} of the queries have a relevant document among some system's first ten, alone: "
        "of that one only",
    ]
    if fusion.seconds_per_query is not None:
        said.append(f"fusing takes {show_seconds(fusion.seconds_per_query)} per query")
    if fusion.tuning is not None:
        said += _tuning_notes(fusion.tuning, main)
    elif fusion.rule != "zipper" and (weak := _drags(fusion, main)):
        said.append(f"{weak} is weaker than the others: try --fuse tuned")
    return said


def _tuning_notes(tuning: Tuning, main: str) -> list[str]:
    test, kept = tuning.difference, ",".join(f"{one:.3g}" for one in tuning.weights)
    shown = show_difference(test.difference, test.low, test.high, test.num)
    equal = f"equal weights give {tuning.equal[main]:.3f}, the learned ones {shown} beside them"
    if not tuning.folds:
        return [f"weights learned on {tuning.queries}", equal]
    ends = [f"{min(one):.3g} to {max(one):.3g}" for one in zip(*tuning.folds, strict=True)]
    return [
        f"each query under weights learned on other folds ({', '.join(ends)})",
        equal,
        f"for use, learned on all and not what was measured: --weights {kept}",
    ]


def _drags(fusion: FusedSystems, main: str) -> str:
    """Name the weakest system, if it is below the best by more than chance."""
    weakest = min(fusion.parts, key=lambda part: part.metrics[main].value)
    below = weakest.below_best
    return "" if below is None or below >= WEAK else model_name(weakest.model.name)


def _chance(one: EvaluationResult, best: EvaluationResult, main: str) -> float:
    values = one.per_query[main]
    labels = None if one.clusters is None else [one.clusters[query] for query in values]
    own = np.array(list(values.values()), dtype=np.float64)
    other = np.array([best.per_query[main][query] for query in values], dtype=np.float64)
    return compare_paired(own, other, clusters=labels).p_value
