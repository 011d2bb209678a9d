"""Workflow: a second model orders anew what a first one found, measured at several depths from one pass."""

import hashlib
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from embedtrain.encoding.language.settings import LanguageScorer, LanguageSettings
from embedtrain.encoding.pair_cache import PairCache, score_lists, score_once
from embedtrain.encoding.pair_scorers import (
    PairScorer,
    detect_kind,
    open_pair_scorer,
)
from embedtrain.encoding.pair_work import OF_LISTS, OF_STAGES, ScorerKind
from embedtrain.encoding.shards import current_shard, use_own_device
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.calibration import calibrate
from embedtrain.evaluation.measures.second_stage import blend, depths_to, grades, reorder
from embedtrain.evaluation.results.ranking_file import written_beside
from embedtrain.evaluation.results.report import compare, summarise
from embedtrain.evaluation.results.result import (
    EvaluatedModel,
    EvaluationResult,
    write_result,
)
from embedtrain.evaluation.results.two_stage import describe_stages
from embedtrain.evaluation.results.wording import model_name
from embedtrain.evaluation.tasks.retrieval import RESULTS, Retrieval, as_run
from embedtrain.files import default_cache
from embedtrain.locks import owns
from embedtrain.progress import progress_bar
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.workflows.evaluate.first_stage import FirstStage
from embedtrain.workflows.evaluate.fused import (
    measure_found,
    open_retrieval,
    save_parts,
    score_found,
)
from embedtrain.workflows.evaluate.pair_cost import PairTiming, stage_cost
from embedtrain.workflows.evaluate.systems import Fusing, open_systems
from embedtrain.workflows.evaluate.tasks import (
    Wish,
    labels_of,
    refuse_price,
    result_places,
)
from embedtrain.workflows.evaluate.train_overlap import train_overlap

WARM_UP, SAMPLE = 32, 256
"""Pairs scored before the clock starts, and those timed where all scores were known."""


@dataclass(frozen=True)
class Reranking:
    """How results are ordered anew."""

    model: str
    """What scores a query with a document: a cross-encoder, an encoder of either kind, or a language model."""
    kind: ScorerKind | None = None
    """What it is; None finds out."""
    top: int = 100
    """Results of each query that it scores."""
    blend: float = 1.0
    """Share of its scores; the rest is the first stage's, both as z-scores of the query."""
    batch_size: int = 32
    """Pairs that a cross-encoder scores at once."""
    language: LanguageSettings | None = None
    """How a language model is asked."""


@dataclass(frozen=True)
class _Second:
    """The second stage, opened."""

    settings: Reranking
    scorer: PairScorer
    kind: ScorerKind
    key: str

    def identity(self) -> EvaluatedModel:
        stated: dict[str, object] = {"kind": self.kind}
        if isinstance(self.scorer, LanguageScorer):
            stated |= self.scorer.describe()
        if self.scorer.precision != "fp32":
            stated["precision"] = self.scorer.precision
        return EvaluatedModel(name=self.settings.model, weights=self.key, settings=stated)


@owns("output")
def evaluate_two_stages(
    first: str,
    wish: Wish,
    reranking: Reranking,
    output: Path | None = None,
    fusing: Fusing | None = None,
) -> list[EvaluationResult]:
    """Measure a first and a second stage together; return a result for each piece of data.

    Relevant documents that the first stage did not find count as missed. Each result is compared with the first
    stage alone, query by query. Scores of pairs are kept in the user's cache, by a hash of all that they depend
    on: a killed run goes on, and another first stage over the same corpus pays for new pairs only. Processes that
    torchrun has started share the pairs; cost is not measured then.

    Args:
        first: A model, ``bm25``, or ``run:FILE`` with a TREC run.
        wish: Data, split and statistics.
        reranking: The second stage.
        output: A ``.json`` file for one task, or a folder of ``<name>.<split>.json``; rankings go beside.
        fusing: What searches beside ``first``; the first stage is their fusion then.

    Raises:
        UserError: If data, models or output cannot be used.
    """
    _refuse_odd(wish)
    shard = current_shard()
    refuse_price(wish, shard.ranks)
    if shard.ranks > 1:
        use_own_device()
        wish = replace(wish, efficiency=False)
    tasks = open_retrieval(wish, "--rerank")
    places = result_places(tasks, output)
    kind = reranking.kind or detect_kind(reranking.model)
    if kind not in OF_STAGES:
        cure = f"Choose {', '.join(OF_STAGES[:-1])} or {OF_STAGES[-1]}"
        raise UserError("--rerank-as", "needs an answer to each query", got=kind, cure=cure)
    if kind in OF_LISTS and shard.ranks > 1:
        problem, cure = "orders whole lists, in one process", "Start it without torchrun"
        raise UserError("--rerank-as", problem, got=kind, cure=cure)
    scorer = open_pair_scorer(
        reranking.model, kind=kind, precision=wish.precision, batch_size=reranking.batch_size,
        language=reranking.language,
    )  # fmt: skip
    second = _Second(reranking, scorer, kind, scorer.key())
    fusing = fusing or Fusing()
    systems = open_systems(first, wish, fusing).check(tasks)
    results = []
    for task, place in zip(tasks, places, strict=True):
        first_found = systems.find(task, max(RESULTS, reranking.top))
        result, found = _measure(first_found.stage, second, task, wish)
        result = result.model_copy(update={"index": systems.index_figures(task)})
        if fusing.others:
            fused, alone = measure_found(first_found, task, wish, fusing)
            result = result.model_copy(update={"fusion": fused.fusion})
            if shard.is_first and fusing.save_runs is not None:
                save_parts(first_found, alone, task, fusing.save_runs)
        if place is not None and shard.is_first:
            assert result.model is not None
            run = as_run(task.task.query_ids, task.task.document_ids, found)
            with written_beside(run, place.with_suffix(".trec"), result.model.weights[:12]):
                write_result(result, place)
        results.append(result)
    return results


def _refuse_odd(wish: Wish) -> None:
    if wish.baseline is not None:
        cure = "Leave --baseline out; embedtrain compare sets results beside each other"
        raise UserError("--rerank", "compares with its own first stage", cure=cure)


def _measure(
    stage: FirstStage, second: _Second, task: Retrieval, wish: Wish
) -> tuple[EvaluationResult, SearchResult]:
    """Score, order at each depth, and compare with the first stage; return the results at the last depth too."""
    found, data = stage.found, task.task
    top = min(second.settings.top, found.indices.shape[1])
    lists = second.kind in OF_LISTS  # a shorter list would get other scores, which are no log-odds
    depths, clusters = [top] if lists else depths_to(top), labels_of(task, wish)
    scores, timing = _score(second, task, found, top, timed=wish.efficiency)
    raw = scores.astype(np.float64)
    scores = blend(found.scores[:, :top], scores, second.settings.blend)
    cost = stage_cost(timing, stage, depths, wish.price_per_hour)
    baseline = summarise(score_found(task, found), task.data, model=stage.model, clusters=clusters)
    orders = {depth: reorder(found, scores, depth) for depth in depths}
    by_depth = {}
    for depth, order in orders.items():
        result = summarise(score_found(task, order), task.data, clusters=clusters)
        by_depth[depth] = compare(result, baseline, f"{model_name(stage.model.name)} alone")
    judged = grades(data.qrels, data.query_ids, data.document_ids, found)[:, :top]
    answered = [bool(own.any()) for own in judged]
    stages = describe_stages(
        stage.model,
        second.identity(),
        baseline,
        by_depth,
        ceiling=score_found(task, reorder(found, judged, top)),
        reachable=dict(zip(data.query_ids, answered, strict=True)),
        seconds=cost.seconds,
        cost=cost.pairs,
        calibration=None if lists else calibrate(raw, judged > 0),
    )
    facts = {
        "model": _both(stage.model, second),
        "two_stage": stages,
        "efficiency": cost.whole,
        "train_overlap": train_overlap(task),
    }
    return by_depth[top].model_copy(update=facts), orders[top]


def _score(
    second: _Second, task: Retrieval, found: SearchResult, top: int, *, timed: bool
) -> tuple[Float32[np.ndarray, "queries top"], PairTiming | None]:
    """Score the first results of each query, or take the scores from the cache."""
    rows, columns = np.nonzero(found.indices[:, :top] >= 0)
    places = zip(rows.tolist(), found.indices[rows, columns].tolist(), strict=True)
    pairs = [(task.task.queries[row], task.task.documents[index]) for row, index in places]
    if not pairs:
        raise UserError("--rerank", "has nothing to order: the first stage found no document")
    scorer, name = second.scorer, second.settings.model
    if timed:
        scorer.logits(pairs[: 2 if second.kind in OF_LISTS else WARM_UP])
    cache = PairCache(default_cache(), second.key)
    before = replace(scorer.work)
    with progress_bar(f"{task.data.name}: scoring pairs", len(pairs)) as advance:
        if second.kind in OF_LISTS:
            own = groupby(zip(rows.tolist(), pairs, strict=True), key=itemgetter(0))
            lists = [[pair for _, pair in one] for _, one in own]
            scored = score_lists(scorer, lists, name, advance)
        else:
            scored = score_once(scorer, pairs, name, cache, advance, current_shard())
    scores = np.full((len(found.indices), top), -np.inf, dtype=np.float32)
    scores[rows, columns] = scored.scores
    if not timed:
        return scores, None
    seconds, num_timed = scored.seconds, scored.num_scored
    if num_timed == 0:
        sample = pairs[:SAMPLE]  # of whole queries: what their pairs share is shared here too
        again = score_once(scorer, sample, name, None)
        seconds, num_timed = again.seconds, again.num_scored
    work = scorer.work - before
    return scores, PairTiming(len(pairs), scored.num_scored, num_timed, seconds, work)


def _both(first: EvaluatedModel, second: _Second) -> EvaluatedModel:
    """Name both stages as one system."""
    settings: dict[str, object] = {"top": second.settings.top}
    if second.settings.blend != 1:
        settings["blend"] = second.settings.blend
    content = f"{first.weights}\n{first.settings}\n{second.key}"
    return EvaluatedModel(
        name=f"{model_name(first.name)} + {model_name(second.settings.model)}",
        weights=hashlib.sha256(content.encode()).hexdigest(),
        settings=settings,
    )
