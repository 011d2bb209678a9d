"""Several systems told as one: what they cost together, and what their fusion is called."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from embedtrain.evaluation.measures.efficiency import Efficiency, Latency, price_work
from embedtrain.evaluation.results.result import EvaluatedModel
from embedtrain.evaluation.results.wording import model_name
from embedtrain.workflows.evaluate.first_stage import FirstStage


def sum_costs(
    costs: Sequence[Efficiency | None], seconds: float, price: float | None
) -> Efficiency | None:
    """Add up what systems cost, one after the other; None if one of them is not known."""
    known = [one for one in costs if one is not None]
    if len(known) < len(costs):
        return None
    latencies = [one.query_latency for one in known]
    latency = Latency(
        sum(one.mean_seconds for one in latencies) + seconds,
        sum(one.p50_seconds for one in latencies) + seconds,
        sum(one.p95_seconds for one in latencies) + seconds,
        min(one.num_calls for one in latencies),
    )
    speed = 1 / sum(1 / one.documents_per_second for one in known)
    return replace(
        known[0],
        documents_per_second=speed,
        query_latency=latency,
        bytes_per_document=sum(one.bytes_per_document for one in known),
        index_bytes=sum(one.index_bytes or 0 for one in known),
        peak_memory_bytes=max(one.peak_memory_bytes or 0 for one in known),
        price=None if price is None else price_work(price, speed, latency),
    )


def name_as_one(parts: Sequence[FirstStage], settings: Mapping[str, object]) -> EvaluatedModel:
    """Name a fusion as one system, told from others by its parts and settings."""
    content = [f"{one.model.weights}\n{one.model.settings}" for one in parts] + [str(settings)]
    return EvaluatedModel(
        name=" + ".join(model_name(one.model.name) for one in parts),
        weights=hashlib.sha256("\n".join(content).encode()).hexdigest(),
        settings=dict(settings),
    )
