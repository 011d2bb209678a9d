"""Several systems against one baseline over any number of tasks, corrected for the number of tests."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist, fmean

from rich import box
from rich.markup import escape
from rich.table import Table

from embedtrain.errors import UserError
from embedtrain.evaluation.measures.statistics import (
    PairedComparison,
    detected_errors,
    holm_correction,
)
from embedtrain.evaluation.results.report import compare
from embedtrain.evaluation.results.result import EvaluationResult, load_results_in
from embedtrain.evaluation.results.wording import (
    describe_errors,
    describe_few,
    file_names,
    metric_title,
    show_difference,
    show_p_value,
)
from embedtrain.files import write_json

ALL_TASKS = "mean over tasks"
NORMAL = NormalDist()


@dataclass(frozen=True)
class ComparedScore:
    """One system against the baseline on one task, or on the mean over all tasks."""

    system: str
    task: str
    metric: str
    value: float
    baseline_value: float
    difference: float
    low: float
    high: float
    p_value: float
    corrected_p_value: float
    """By Holm, over all systems and tasks; the mean over tasks is a test of its own, not corrected."""
    minimum_detectable_difference: float
    num: int
    """Queries, or clusters of them, that were compared."""


@dataclass(frozen=True)
class SystemResults:
    """The results of one system by task."""

    name: str
    results: dict[str, EvaluationResult]


def load_systems(paths: Sequence[Path]) -> list[SystemResults]:
    """Read result files, or folders of them, one for each system.

    Raises:
        UserError: If there are fewer than two, a file is no result, or a folder has none.
    """
    if len(paths) < 2:
        raise UserError("compare", "needs two systems or more", got=len(paths), cure="Name files")
    names = file_names(paths)
    return [SystemResults(name, _load(path)) for name, path in zip(names, paths, strict=True)]


def compare_systems(
    systems: Sequence[SystemResults], metric: str | None = None
) -> list[ComparedScore]:
    """Compare every system with the first, task by task, each on its main metric or on ``metric``.

    Tasks that a system or the baseline lacks are an error: a mean over different tasks says nothing.
    """
    baseline = systems[0]
    rows = []
    for system in systems[1:]:
        if odd := set(system.results) ^ set(baseline.results):
            raise UserError(
                system.name,
                f"and {baseline.name} were not measured on the same tasks",
                got=sorted(odd)[0],
                cure="Evaluate both on the same data",
            )
        rows += [
            _compare_one(system.name, task, found, baseline, metric)
            for task, found in system.results.items()
        ]
    corrected = holm_correction([row.p_value for row in rows])
    rows = [
        ComparedScore(**{**asdict(row), "corrected_p_value": p_value})
        for row, p_value in zip(rows, corrected, strict=True)
    ]
    if len(baseline.results) > 1:
        for system in systems[1:]:
            rows.append(_mean_over_tasks([row for row in rows if row.system == system.name]))
    return rows


def comparison_table(rows: Sequence[ComparedScore], baseline: str) -> Table:
    """Lay comparisons out for a rich console."""
    same = shared_words(rows)
    about = f"{escape(same)}; " if same else ""
    caption = (
        f"{about}baseline: {escape(baseline)}; 95 % intervals of the paired difference; p corrected by Holm; "
        "found: the true difference that this much data would find with 80 % probability"
    ) + describe_few(row.num for row in rows)
    caption += describe_errors(sorted(_metrics(rows)))
    table = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=caption, caption_justify="left"
    )
    table.add_column("system", overflow="fold")
    if own := [own_words(row, rows) for row in rows if own_words(row, rows)]:
        table.add_column("task", overflow="fold")
    for heading in ("n", "score", "baseline", "difference", "p", "found"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        shown = row.p_value if row.task == ALL_TASKS else row.corrected_p_value
        table.add_row(
            escape(row.system),
            *([escape(own_words(row, rows))] if own else []),
            f"{row.num:,}" if row.num else "",
            f"{row.value:.3f}",
            f"{row.baseline_value:.3f}",
            show_difference(row.difference, row.low, row.high, row.num).replace(" ", "\n", 1),
            show_p_value(shown),
            f"{row.minimum_detectable_difference:.3f}",
        )
    return table


def shared_words(rows: Sequence[ComparedScore]) -> str:
    """Return the metric, and the task, that all rows are about; empty if they differ in both."""
    metrics, tasks = _metrics(rows), {row.task for row in rows}
    metric = metric_title(metrics.pop()) if len(metrics) == 1 else ""
    task = tasks.pop() if len(tasks) == 1 else ""
    return " on ".join(word for word in (metric, task) if word)


def own_words(row: ComparedScore, rows: Sequence[ComparedScore]) -> str:
    """Return the task of a row, and its metric, as far as they are not those of all."""
    task = row.task if len({other.task for other in rows}) > 1 else ""
    several = len(_metrics(rows)) > 1 and row.task != ALL_TASKS
    return " ".join(word for word in (task, f"({metric_title(row.metric)})" * several) if word)


def _metrics(rows: Sequence[ComparedScore]) -> set[str]:
    return {row.metric for row in rows if row.task != ALL_TASKS}


def write_comparison(rows: Sequence[ComparedScore], baseline: str, path: Path) -> None:
    """Write comparisons as JSON."""
    content = {"baseline": baseline, "comparisons": [asdict(row) for row in rows]}
    write_json(path, content)


def _load(path: Path) -> dict[str, EvaluationResult]:
    found = load_results_in(path)
    return {f"{result.data.name} {result.data.split}": result for result in found}


def _compare_one(
    name: str, task: str, result: EvaluationResult, baseline: SystemResults, metric: str | None
) -> ComparedScore:
    wanted = metric or next(iter(result.metrics))
    other = baseline.results[task]
    for owner, found in ((name, result), (baseline.name, other)):
        if wanted not in found.metrics:
            raise UserError(
                owner,
                f"has no {wanted} on {task}",
                got=list(found.metrics),
                cure="Choose another metric, or leave it out for each task's main one",
            )
    compared = compare(result, other, baseline.name).comparison
    assert compared is not None
    paired: PairedComparison = compared.metrics[wanted]
    return ComparedScore(
        system=name,
        task=task,
        metric=wanted,
        value=result.metrics[wanted].value,
        baseline_value=other.metrics[wanted].value,
        difference=paired.difference,
        low=paired.low,
        high=paired.high,
        p_value=paired.p_value,
        corrected_p_value=paired.p_value,
        minimum_detectable_difference=paired.minimum_detectable_difference,
        num=paired.num,
    )


def _mean_over_tasks(rows: Sequence[ComparedScore]) -> ComparedScore:
    """Average over tasks that are taken as fixed: only their queries are a sample.

    The standard errors of the tasks add up as those of independent means; interval and test are normal.
    """
    difference = fmean(row.difference for row in rows)
    errors = [row.minimum_detectable_difference / detected_errors(row.num) for row in rows]
    error = math.sqrt(sum(one**2 for one in errors)) / len(rows)
    p_value = 1.0 if error == 0 else 2 * (1 - NORMAL.cdf(abs(difference) / error))
    reach = NORMAL.inv_cdf(0.975) * error
    return ComparedScore(
        system=rows[0].system,
        task=ALL_TASKS,
        metric="mean",
        value=fmean(row.value for row in rows),
        baseline_value=fmean(row.baseline_value for row in rows),
        difference=difference,
        low=difference - reach,
        high=difference + reach,
        p_value=p_value,
        corrected_p_value=p_value,
        minimum_detectable_difference=detected_errors(0) * error,
        num=sum(row.num for row in rows),
    )
