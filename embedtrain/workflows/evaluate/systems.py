"""Several systems that search the same corpus as one: models, BM25 and rankings from files, and their fusion."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from embedtrain.errors import UserError
from embedtrain.evaluation.measures.efficiency import Efficiency, Latency, price_work
from embedtrain.evaluation.measures.tuned_fusion import (
    Judged,
    Tuned,
    Weights,
    assign_folds,
    cross_validate,
    fit_weights,
)
from embedtrain.evaluation.results.result import EvaluatedModel, IndexFigures
from embedtrain.evaluation.results.wording import model_name
from embedtrain.evaluation.tasks.discovery import open_task
from embedtrain.evaluation.tasks.retrieval import Retrieval
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.fusion import (
    Fusion,
    Pool,
    Rule,
    normalise,
    pool_lists,
    weights_for,
)
from embedtrain.workflows.evaluate.asking import PLAIN, Asking
from embedtrain.workflows.evaluate.by_units import find_by_units
from embedtrain.workflows.evaluate.first_stage import (
    RUN,
    FirstStage,
    System,
    find_first,
    is_model,
    open_system,
)
from embedtrain.workflows.evaluate.index_cost import measure_index
from embedtrain.workflows.evaluate.tasks import Wish, labels_of

DEPTH = 1000
"""Results of each system that are fused, unless the user says otherwise."""


@dataclass(frozen=True)
class Fusing:
    """What searches beside the first system, and how the lists become one."""

    others: tuple[str, ...] = ()
    """Models, ``bm25``, ``bm25:key=value,...`` or ``run:FILE``."""
    rule: Rule | Literal["tuned"] = "sum"
    weights: Weights | None = None
    """One of each system, the first included."""
    depth: int = DEPTH
    """Results of a query that each system gives."""
    tune_on: str | None = None
    """Split whose queries ``tuned`` learns weights on; None learns on folds of those that are measured."""
    asking: Asking = PLAIN
    """How the systems are asked; rankings from files are not, and feedback is for the first system."""
    units: bool = False
    """Whether documents are found by their best unit of ``units.jsonl``; rankings from files are taken as they are."""
    save_runs: Path | None = None
    """Folder for the ranking and the result of each system."""

    def fusion(self) -> Fusion:
        """Return the rule with its settings.

        Raises:
            UserError: If they do not go together.
        """
        if self.rule == "tuned" and self.weights is not None:
            cure = "Leave out one of them"
            raise UserError("--weights", "are what --fuse tuned learns", cure=cure)
        if self.tune_on is not None and self.rule != "tuned":
            raise UserError("--tune-on", "is for weights that are learned", cure="Add --fuse tuned")
        rule = "sum" if self.rule == "tuned" else self.rule
        try:
            return Fusion(rule=rule, weights=self.weights)
        except ValidationError as error:
            said = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
            raise UserError("--fuse and --weights", f"do not go together: {said}") from error


@dataclass(frozen=True)
class Found:
    """What systems found for the queries of a task, and what that became."""

    stage: FirstStage
    """As one list, of one system."""
    parts: Sequence[FirstStage]
    weights: Weights | None = None
    """None where each fold of queries has its own."""
    seconds: float = 0.0
    """Of the fusion, per query."""
    tuned: Tuned | None = None
    equal: SearchResult | None = None
    """The lists under equal weights, where weights were learned."""


@dataclass(frozen=True)
class Systems:
    """Systems that search, opened; one alone is taken as it is."""

    systems: Sequence[System]
    wishes: Sequence[Wish]
    """One of each: what the user wishes of vectors and texts is wished of the first."""
    fusing: Fusing

    def find(self, task: Retrieval, num_results: int) -> Found:
        """Search the corpus of a task for its queries, keeping at least so many results of each.

        Raises:
            UserError: If lists and rule do not go together.
        """
        if len(self.systems) == 1:
            stage = self._find_one(0, task, num_results)
            return Found(stage, [stage])
        parts = self.search(task)
        fusion = self.fusing.fusion()
        tuning = self.fusing.rule == "tuned"
        weights = self._fit(task, fusion) if tuning else weights_for(fusion, len(parts))
        start = time.perf_counter()
        pool = _pool(parts, fusion)
        found, tuned = _fuse(pool, fusion, weights, num_results), None
        seconds = (time.perf_counter() - start) / len(task.task.queries)
        if weights is None:
            labels = labels_of(task, self.wishes[0])
            clusters = [labels[query] if labels else query for query in task.task.query_ids]
            tuned = cross_validate(_judged(pool, task), assign_folds(clusters), num_results)
            found = tuned.found
        cost = _together([one.cost for one in parts], seconds, self.wishes[0].price_per_hour)
        stage = FirstStage(_as_one(parts, self.fusing, tuned, weights), found, cost)
        equal = _fuse(pool, fusion, None, num_results) if tuning else None
        return Found(stage, parts, weights, seconds, tuned, equal)

    def search(self, task: Retrieval) -> list[FirstStage]:
        """Let every system search the corpus of a task for its queries."""
        depth = self.fusing.depth
        return [self._find_one(number, task, depth) for number in range(len(self.systems))]

    def _find_one(self, number: int, task: Retrieval, depth: int) -> FirstStage:
        system, wish, asking = self.systems[number], self.wishes[number], self.fusing.asking
        if number > 0:
            asking = replace(asking, feedback=None)

        def find(searched: Retrieval, wanted: int, timed: bool) -> FirstStage:
            own = replace(wish, efficiency=timed and wish.efficiency)
            return find_first(system, searched, own, wanted, asking)

        if self.fusing.units and not system.name.startswith(RUN):
            return find_by_units(find, task, depth)
        return find(task, depth, True)

    def index_figures(self, task: Retrieval) -> IndexFigures | None:
        """Measure the index of the first system, if it searches by one."""
        subject = self.systems[0].subject
        if subject is None or subject.index is None:
            return None
        return measure_index(subject, task.task, timed=self.wishes[0].efficiency)

    def _fit(self, task: Retrieval, fusion: Fusion) -> Weights | None:
        """Learn weights on another split; None if there is none."""
        split = self.fusing.tune_on
        if split is None:
            return None
        other = open_task(str(task.files.path), split, task.kind)
        assert isinstance(other, Retrieval)
        if shared := set(task.task.queries) & set(other.task.queries):
            cure = "Tune on other queries than those measured"
            raise UserError(
                "--tune-on", "holds a query that is measured", got=min(shared), cure=cure
            )
        untimed = replace(self, wishes=[replace(one, efficiency=False) for one in self.wishes])
        return fit_weights(_judged(_pool(untimed.search(other), fusion), other))


def open_systems(first: str, wish: Wish, fusing: Fusing) -> Systems:
    """Load the systems; only the first is told what the user wishes of vectors and texts.

    Raises:
        UserError: If one cannot be loaded, or the fusion cannot be done.
    """
    fusing.fusion()
    fusing.asking.check()
    if wish.index is not None and not is_model(first):
        raise UserError("--index", "is for models", got=first, cure="Leave it out")
    plain = Wish(
        wish.data, wish.split, wish.task, wish.clusters, efficiency=wish.efficiency,
        price_per_hour=wish.price_per_hour, precision=wish.precision,
    )  # fmt: skip
    wishes = [wish, *(plain for _ in fusing.others)]
    names = [first, *fusing.others]
    for name in names:
        if not is_model(name) and name.startswith(RUN) and fusing.tune_on is not None:
            cure = "Leave out --tune-on: folds of the queries are taken then"
            raise UserError("--tune-on", "needs systems that can search again", got=name, cure=cure)
    systems = [open_system(name, own) for name, own in zip(names, wishes, strict=True)]
    return Systems(systems, wishes, fusing)


def _pool(parts: Sequence[FirstStage], fusion: Fusion) -> Pool:
    return pool_lists([normalise(one.found, fusion) for one in parts])


def _fuse(pool: Pool, fusion: Fusion, weights: Weights | None, num_results: int) -> SearchResult:
    """Fuse under some weights; None is for equal ones."""
    if fusion.rule == "zipper":
        return pool.interleave(num_results)
    return pool.add_up(weights or (1.0,) * len(pool.values), num_results)


def _judged(pool: Pool, task: Retrieval) -> Judged:
    data = task.task
    return Judged(pool, data.query_ids, data.document_ids, data.qrels)


def _together(
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


def _as_one(
    parts: Sequence[FirstStage], fusing: Fusing, tuned: Tuned | None, weights: Weights | None
) -> EvaluatedModel:
    """Name a fusion as one system."""
    settings: dict[str, object] = {"fusion": fusing.rule, "depth": fusing.depth}
    learned = [list(one) for one in tuned.folds] if tuned else None
    if fusing.weights is not None or fusing.rule == "tuned":
        settings["weights"] = learned or list(weights or ())
    content = [f"{one.model.weights}\n{one.model.settings}" for one in parts] + [str(settings)]
    return EvaluatedModel(
        name=" + ".join(model_name(one.model.name) for one in parts),
        weights=hashlib.sha256("\n".join(content).encode()).hexdigest(),
        settings=settings,
    )
