"""What ordering results anew costs: pairs in a second, seconds and money of a query."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from embedtrain.encoding.pair_work import PairWork
from embedtrain.evaluation.measures.efficiency import (
    Efficiency,
    Latency,
    describe_machine,
    price_work,
)
from embedtrain.evaluation.results.result import PairCost
from embedtrain.workflows.evaluate.first_stage import FirstStage


@dataclass(frozen=True)
class PairTiming:
    """What scoring the pairs of a task took."""

    num_pairs: int
    num_scored: int
    """Of these; the others were known."""
    num_timed: int
    """Pairs that the clock was running for: those scored, or a sample where all were known."""
    seconds: float
    """For ``num_timed``."""
    work: PairWork
    """Of ``num_timed``."""


@dataclass(frozen=True)
class StageCost:
    """What two stages cost together; all None where nothing was timed."""

    seconds: Mapping[int, float | None]
    """Time of a query at each depth: of the second stage alone where that of the first, depth 0, is not known."""
    pairs: PairCost | None = None
    whole: Efficiency | None = None
    """The first stage's cost, with the time of both in each query."""


def stage_cost(
    timing: PairTiming | None,
    stage: FirstStage,
    depths: Sequence[int],
    price_per_hour: float | None,
) -> StageCost:
    """Work out what a query costs at each of some rising depths, on this machine at its price."""
    if timing is None:
        return StageCost(dict.fromkeys([0, *depths]))
    indices = stage.found.indices
    first = 0.0 if stage.cost is None else stage.cost.query_latency.mean_seconds
    per_pair = timing.seconds / timing.num_timed
    seconds = {
        depth: first + float((indices[:, :depth] >= 0).sum() / len(indices)) * per_pair
        for depth in depths
    }
    last, work = seconds[depths[-1]], timing.work
    pairs = PairCost(
        machine=describe_machine(),
        num_pairs=timing.num_pairs,
        num_scored=timing.num_scored,
        pairs_per_second=1 / per_pair,
        tokens_per_pair=work.tokens / timing.num_timed if work.tokens else None,
        padding=work.padding / (work.tokens + work.padding) if work.tokens else None,
        cut_documents=work.cut_documents / timing.num_timed if work.tokens else None,
        price_per_thousand_queries=None
        if price_per_hour is None
        else price_per_hour / 3600 * 1000 * last,
    )
    whole = None if stage.cost is None else _slower(stage.cost, last - first, price_per_hour)
    return StageCost({0: first if stage.cost else None, **seconds}, pairs, whole)


def _slower(cost: Efficiency, seconds: float, per_hour: float | None) -> Efficiency:
    """Add time to each query."""
    one = cost.query_latency
    latency = Latency(
        one.mean_seconds + seconds,
        one.p50_seconds + seconds,
        one.p95_seconds + seconds,
        one.num_calls,
        None if one.p99_seconds is None else one.p99_seconds + seconds,
    )
    price = None if per_hour is None else price_work(per_hour, cost.documents_per_second, latency)
    return replace(cost, query_latency=latency, price=price)
