"""The result of an evaluation: what its JSON file holds, how it is compared with another and shown.

In the file each metric is a key of its own, ``{"ndcg_at_10": {"value": v, "low": l, "high": h}, ...}``,
beside the sections ``data``, ``efficiency``, ``comparison`` and ``per_query``, names that no metric has.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embedtrain.errors import UserError
from embedtrain.evaluation.efficiency import Efficiency
from embedtrain.evaluation.metrics import PerQuery
from embedtrain.evaluation.statistics import (
    NUM_RESAMPLES,
    Interval,
    PairedComparison,
    bootstrap_interval,
    compare_paired,
)

SECTIONS = ("data", "efficiency", "comparison", "per_query")
CURE = "Write one with embedtrain evaluate MODEL --data DIR --output FILE.json"


class EvaluatedData(BaseModel):
    """The data that a model was evaluated on."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    split: str
    fingerprint: str
    """A hash of the queries, documents and judgments: results can be compared where it is equal."""
    num_queries: int
    num_documents: int


class BaselineComparison(BaseModel):
    """Paired tests of every metric that result and baseline share."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    baseline: str
    """The baseline's file or name."""
    metrics: dict[str, PairedComparison]


class EvaluationResult(BaseModel):
    """Scores with 95 % intervals, the score of each query, and what they were measured on."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    metrics: dict[str, Interval]
    data: EvaluatedData
    efficiency: Efficiency | None = None
    comparison: BaselineComparison | None = None
    per_query: PerQuery

    @model_validator(mode="after")
    def _check_names(self) -> "EvaluationResult":
        if not self.metrics:
            raise ValueError("holds no metric")
        if reserved := set(self.metrics) & set(SECTIONS):
            raise ValueError(f"the metric {min(reserved)} has the name of a section")
        if missing := set(self.metrics) - set(self.per_query):
            raise ValueError(f"the metric {min(missing)} has no scores per query")
        return self

    def to_json(self) -> dict[str, Any]:
        """Lay the result out as in its file: metrics first, absent sections left out, queries last."""
        dumped = self.model_dump(mode="json")
        sections = {name: dumped[name] for name in SECTIONS if dumped[name] is not None}
        return {**dumped["metrics"], **sections}


def summarise(
    per_query: PerQuery,
    data: EvaluatedData,
    *,
    efficiency: Efficiency | None = None,
    clusters: Mapping[str, str] | None = None,
    num_resamples: int = NUM_RESAMPLES,
) -> EvaluationResult:
    """Average the scores of the queries and add bootstrap intervals, by cluster where queries have one."""
    metrics = {
        name: bootstrap_interval(
            np.array(list(values.values()), dtype=np.float64),
            clusters=None if clusters is None else [clusters[query] for query in values],
            num_resamples=num_resamples,
        )
        for name, values in per_query.items()
    }
    return EvaluationResult(metrics=metrics, data=data, efficiency=efficiency, per_query=per_query)


def compare(
    result: EvaluationResult,
    baseline: EvaluationResult,
    baseline_name: str,
    *,
    clusters: Mapping[str, str] | None = None,
    num_resamples: int = NUM_RESAMPLES,
) -> EvaluationResult:
    """Add a paired comparison with a baseline that was measured on the same data and queries."""
    _check_comparable(result, baseline, baseline_name)
    comparisons = {}
    for name, values in result.per_query.items():
        if name not in baseline.per_query:
            continue
        queries = list(values)
        comparisons[name] = compare_paired(
            np.array([values[query] for query in queries], dtype=np.float64),
            np.array([baseline.per_query[name][query] for query in queries], dtype=np.float64),
            clusters=None if clusters is None else [clusters[query] for query in queries],
            num_resamples=num_resamples,
        )
    comparison = BaselineComparison(baseline=baseline_name, metrics=comparisons)
    return result.model_copy(update={"comparison": comparison})


def write_result(result: EvaluationResult, path: Path) -> None:
    """Write a result to its JSON file, which appears only when complete."""
    partial = path.with_name(f"{path.name}.partial")
    text = json.dumps(result.to_json(), indent=2, allow_nan=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UserError(
            path, f"cannot be written ({error.strerror})", cure="Check the folder and free space"
        ) from error
    finally:
        with suppress(OSError):  # it is there only if writing failed half-way
            partial.unlink()


def load_result(path: Path) -> EvaluationResult:
    """Read a result that :func:`write_result` wrote; anything else is the user's mistake."""
    content = _read_object(path)
    sections = {name: content.pop(name) for name in SECTIONS if name in content}
    try:
        return EvaluationResult.model_validate({"metrics": content, **sections})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])).removeprefix("metrics.")
        reason = f"{place}: {first['msg']}" if place else first["msg"]
        raise UserError(
            path, f"is not the result of an evaluation ({reason})", cure=CURE
        ) from error


def result_tables(result: EvaluationResult, *, markdown: bool = False) -> list[Table]:
    """Lay out a result for a rich console: one table of quality and, where measured, one of cost."""
    style = box.MARKDOWN if markdown else box.SIMPLE_HEAD
    tables = [_quality_table(result, style)]
    if result.efficiency is not None:
        tables.append(_efficiency_table(result.efficiency, style))
    return tables


def render_text(result: EvaluationResult, *, markdown: bool = False) -> str:
    """Render a result as plain text or as Markdown tables, without colour."""
    rendered = []
    for table in result_tables(result, markdown=markdown):
        output = StringIO()
        Console(file=output, width=160, color_system=None).print(table)
        lines = [line.rstrip() for line in output.getvalue().splitlines()]
        rendered.append("\n".join(line for line in lines if line))
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
    shared = [name for name in result.per_query if name in baseline.per_query]
    if not shared:
        raise UserError(
            baseline_name,
            "shares no metric with this result",
            got=", ".join(baseline.per_query),
            cure=f"Evaluate the baseline with {', '.join(result.per_query)}",
        )
    for name in shared:
        if odd := result.per_query[name].keys() ^ baseline.per_query[name].keys():
            raise UserError(
                baseline_name,
                f"was measured on other queries ({len(odd)} are in only one of the two)",
                got=min(odd),
                cure="Evaluate the baseline on the same data and split",
            )


def _describe(data: EvaluatedData) -> str:
    return f"{data.name} {data.split} (fingerprint {data.fingerprint[:12]})"


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise UserError(path, f"cannot be read ({error.strerror})", cure=CURE) from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}:{error.lineno}", f"is not JSON ({error.msg})", cure=CURE
        ) from error
    except ValueError as error:
        raise UserError(path, f"is not JSON ({error})", cure=CURE) from error
    if not isinstance(content, dict):
        raise UserError(path, "is not a JSON object", got=type(content).__name__, cure=CURE)
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _quality_table(result: EvaluationResult, style: box.Box) -> Table:
    comparison = result.comparison
    caption = "95 % intervals in brackets"
    headings = [escape(f"{result.data.name} {result.data.split}")]
    if comparison is not None:
        caption += f"; baseline: {escape(comparison.baseline)}"
        headings += ["baseline", "difference", "p"]
    table = Table("metric", box=style, caption=caption, caption_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, interval in result.metrics.items():
        cells = [_title(name), f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"]
        if comparison is not None and name in comparison.metrics:
            paired = comparison.metrics[name]
            cells += [
                f"{interval.value - paired.difference:.3f}",
                f"{paired.difference:+.3f} [{paired.low:+.3f}, {paired.high:+.3f}]",
                "<0.001" if paired.p_value < 0.001 else f"{paired.p_value:.3f}",
            ]
        table.add_row(*cells)
    return table


def _efficiency_table(efficiency: Efficiency, style: box.Box) -> Table:
    latency, machine = efficiency.query_latency, efficiency.machine
    threads = f"{machine.num_threads} threads of torch, {machine.memory_gib:g} GiB"
    place = ", ".join(filter(None, (machine.gpu, machine.cpu, threads)))
    table = Table("cost", box=style, caption=f"on {escape(place)}", caption_justify="left")
    table.add_column("", justify="right")
    table.add_row("encoding", f"{efficiency.documents_per_second:,.1f} documents/s")
    table.add_row("query, median", f"{1000 * latency.p50_seconds:,.2f} ms")
    table.add_row("query, 95th percentile", f"{1000 * latency.p95_seconds:,.2f} ms")
    table.add_row("index", f"{efficiency.bytes_per_document:,.0f} bytes/document")
    return table


def _title(name: str) -> str:
    kind, _, cutoff = name.partition("_at_")
    titles = {"ndcg": "nDCG", "mrr": "MRR", "map": "MAP"}
    return f"{titles.get(kind, kind.capitalize())}@{cutoff}" if cutoff else name
