"""The result of an evaluation and its JSON file.

In the file each metric is a key of its own, ``{"ndcg_at_10": {"value": v, "low": l, "high": h}, ...}``,
beside sections whose names no metric has (:data:`SECTIONS`).
"""

import json
from pathlib import Path
from typing import Any, NoReturn

from pydantic import Field, ValidationError, model_validator

from embedtrain.errors import UserError
from embedtrain.evaluation.measures.calibration import Calibration
from embedtrain.evaluation.measures.efficiency import Efficiency, Latency, Machine
from embedtrain.evaluation.measures.metrics import PerQuery
from embedtrain.evaluation.measures.statistics import Interval, PairedComparison
from embedtrain.files import write_file
from embedtrain.outside import reading
from embedtrain.section import Section

SECTIONS = (
    "data", "model", "train_overlap", "ties", "efficiency", "index", "comparison", "fusion", "two_stage", "per_query",
    "predictions", "clusters",
)  # fmt: skip
CURE = "Write one with embedtrain evaluate MODEL --data DIR --output FILE.json"


class EvaluatedData(Section):
    """The data that a model was evaluated on."""

    name: str
    split: str
    fingerprint: str
    """A hash of the queries, documents and judgments: results can be compared where it is equal."""
    num_queries: int
    """Or items, where a task has no queries."""
    num_documents: int
    task: str = "retrieval"
    """Kind of task."""


class EvaluatedModel(Section):
    """The model that was evaluated, and how its vectors were used."""

    name: str
    weights: str
    """A hash of weights, tokenizer and contract: two checkpoints never share it."""
    settings: dict[str, Any] = Field(default={})
    """What differs from the plain vectors, such as truncation or quantisation."""


class Predictions(Section):
    """What a model said of each item and what was expected, for metrics that are no mean over items."""

    predicted: dict[str, float]
    """Item to similarity or number of its cluster."""
    expected: dict[str, float]
    """Item to judged similarity, label 0 or 1, or number of its class."""


class Ties(Section):
    """What the order of documents with equal scores decides: trec_eval's is by document id."""

    cutoff: int
    tied_queries: float
    """Share of the queries whose results at the ranks ``cutoff`` and ``cutoff + 1`` are tied."""
    expected: dict[str, float]
    """Metric to its mean over queries when tied results are ordered at random."""


class IndexFigures(Section):
    """What an index costs, and what it misses of the exact search."""

    settings: dict[str, Any]
    """Its name and settings."""
    bytes_per_document: float
    build_seconds: float
    """0 where it was built before, by an engine."""
    recall: dict[str, float]
    """``recall_at_10`` and so on: the share of the exact best documents that it finds."""
    num_queries: int
    """Sampled ones, on which that was measured."""
    latency: Latency | None = None
    """From the vector of one query to its results; None where nothing was timed."""
    postings_per_query: float | None = None
    """Entries that a query reads of the lists of its words, where vectors are sparse."""


class BaselineComparison(Section):
    """Paired tests of every metric that result and baseline share."""

    baseline: str
    """The baseline's file or name."""
    metrics: dict[str, PairedComparison]


class Depth(Section):
    """What ordering the first results anew gives, down to a depth; deeper ones keep their order."""

    depth: int
    metrics: dict[str, float]
    difference: PairedComparison
    """Of the main metric, from the first stage."""
    adjusted_p_value: float
    """That of ``difference`` by Holm's correction for the depths told."""
    seconds_per_query: float | None = None
    """Of both stages, or of the second where the first was not timed."""


class PairCost(Section):
    """What scoring pairs costs."""

    machine: Machine
    num_pairs: int
    """Of all queries."""
    num_scored: int
    """Now; the others were known from before."""
    pairs_per_second: float
    tokens_per_pair: float | None
    """Without padding; None, as the two below, where texts are encoded apart."""
    padding: float | None
    """Share of the computed places that held no token."""
    cut_documents: float | None
    """Share of the pairs that were too long to be read whole."""
    price_per_thousand_queries: float | None = None
    """Of both stages, as far as they were timed, at a price of the machine."""


class TwoStage(Section):
    """How a second model ordered anew what a first one had found; its result is the whole's."""

    first: EvaluatedModel
    second: EvaluatedModel
    top: int
    """Results of a query that the second stage saw."""
    first_seconds: float | None = None
    """Time of a query in the first stage, where it is known."""
    baseline: dict[str, Interval]
    """The first stage's own scores."""
    ceiling: dict[str, float]
    """What the best order of these results would score."""
    reachable: float
    """Share of the queries that have a relevant document among these results."""
    reachable_metrics: dict[str, float]
    """Means over those queries alone."""
    depths: list[Depth]
    better: int
    """Queries whose main metric rose."""
    worse: int
    worst: dict[str, float]
    """The queries that lost most, and how much; three at most."""
    cost: PairCost | None = None
    calibration: Calibration | None = None


class FusedPart(Section):
    """One of the systems whose results were fused."""

    model: EvaluatedModel
    metrics: dict[str, Interval]
    """Its own."""
    difference: PairedComparison
    """Of the main metric: the fusion's, less this one's."""
    adjusted_p_value: float
    """That of ``difference`` by Holm's correction for the systems."""
    better: int
    """Queries whose main metric is higher in the fusion."""
    worse: int
    alone: float
    """Share of the queries of which no other system has a relevant document among its first ten."""
    below_best: float | None = None
    """Probability that chance alone puts it so far below the best system; None of that one."""
    seconds_per_query: float | None = None
    bytes_per_document: float | None = None


class Tuning(Section):
    """How the weights of a fusion were learned."""

    queries: str
    """The split they were learned on, or ``folds`` of the queries that they were measured on."""
    folds: list[list[float]]
    """Weights of each fold, learned on the others; none where another split was learned on."""
    weights: list[float]
    """To be used. Of folds: learned on all queries, and not what was measured."""
    equal: dict[str, float]
    """Metrics of the same lists under equal weights."""
    difference: PairedComparison
    """Of the main metric: from equal weights."""


class FusedSystems(Section):
    """Systems whose results became one list; the result is the list's."""

    rule: str
    weights: list[float] | None = None
    """None where each fold of queries had its own."""
    depth: int
    """Results of a query that each system gave."""
    parts: list[FusedPart]
    together: float
    """Share of the queries of which any system has a relevant document among its first ten."""
    seconds_per_query: float | None = None
    """Of the fusion itself."""
    tuning: Tuning | None = None


class EvaluationResult(Section):
    """Scores with 95 % intervals, the score of each query, and what they were measured on."""

    metrics: dict[str, Interval]
    data: EvaluatedData
    model: EvaluatedModel | None = None
    train_overlap: dict[str, float] | None = None
    """Share of the queries that equal a training query (of the run, or of the split beside them), or share 13 words."""
    ties: Ties | None = None
    """Where more than 1 % of the queries of a retrieval task are tied at the cut."""
    efficiency: Efficiency | None = None
    index: IndexFigures | None = None
    """Where documents were searched by an index that was named."""
    comparison: BaselineComparison | None = None
    fusion: FusedSystems | None = None
    """Where the results of several systems became one; of two stages it is the first, by itself."""
    two_stage: TwoStage | None = None
    """Where one model ordered anew what another had found; ``comparison`` is with the first then."""
    per_query: PerQuery
    predictions: Predictions | None = None
    """For the metrics that ``per_query`` lacks."""
    clusters: dict[str, str] | None = None
    """Query or item to the label of those it is drawn with."""

    @model_validator(mode="after")
    def _check_names(self) -> "EvaluationResult":
        if not self.metrics:
            raise ValueError("holds no metric")
        if reserved := set(self.metrics) & set(SECTIONS):
            raise ValueError(f"the metric {min(reserved)} has the name of a section")
        missing = set(self.metrics) - set(self.per_query)
        if missing and self.predictions is None:
            raise ValueError(f"the metric {min(missing)} has no scores per query")
        return self

    def to_json(self) -> dict[str, Any]:
        """Lay the result out as in its file: metrics first, absent sections left out, queries last."""
        dumped = self.model_dump(mode="json")
        sections = {name: dumped[name] for name in SECTIONS if dumped[name] is not None}
        return {**dumped["metrics"], **sections}


def write_result(result: EvaluationResult, path: Path) -> None:
    """Write a result to its JSON file, which appears only when complete."""
    write_file(path, json.dumps(result.to_json(), indent=2, allow_nan=False) + "\n")


def load_result(path: Path) -> EvaluationResult:
    """Read a result that :func:`write_result` wrote; anything else is the user's mistake."""
    content = _read_object(path)
    try:
        return parse_result(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])).removeprefix("metrics.")
        reason = f"{place}: {first['msg']}" if place else first["msg"]
        raise UserError(
            path, f"is not the result of an evaluation ({reason})", cure=CURE
        ) from error


def load_results_in(path: Path) -> list[EvaluationResult]:
    """Read a result file, or all of a folder's, of which there must be one."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise UserError(path, "holds no result", cure="Write some with embedtrain evaluate")
    return [load_result(file) for file in files]


def parse_result(content: dict[str, Any]) -> EvaluationResult:
    """Build a result from the object of its file."""
    sections = {name: content[name] for name in SECTIONS if name in content}
    metrics = {name: value for name, value in content.items() if name not in sections}
    return EvaluationResult.model_validate({"metrics": metrics, **sections})


def _read_object(path: Path) -> dict[str, Any]:
    with reading(path, cure=CURE):
        text = path.read_text(encoding="utf-8")
        try:
            content = json.loads(text, parse_constant=_refuse_constant)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path}:{error.lineno}", f"is not JSON ({error.msg})", cure=CURE
            ) from error
    if not isinstance(content, dict):
        raise UserError(path, "is not a JSON object", got=type(content).__name__, cure=CURE)
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
