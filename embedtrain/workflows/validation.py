"""What measures a model while it trains: a retriever on the whole corpus, a cross-encoder on lists that another found."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from embedtrain.contract.pair_contract import PairContract
from embedtrain.contract.texts import ModelContract
from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.encoding.cache import embed_once, model_key
from embedtrain.evaluation.measures.metrics import mean_scores
from embedtrain.evaluation.measures.second_stage import grades, in_trec_order, reorder
from embedtrain.models.build import load_encoder
from embedtrain.models.cross_encoder.config import CrossEncoderConfig
from embedtrain.models.dense.pair_head import interaction_of
from embedtrain.progress import console
from embedtrain.recipe.retrieval import Recipe
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.search import search
from embedtrain.training.measuring import Validation
from embedtrain.training.ranks.processes import own_shard
from embedtrain.training.settings import ValidationConfig
from embedtrain.training.validation import METRIC, score_lists
from embedtrain.workflows.evaluate.first_stage import (
    BM25,
    RUN,
    is_model,
    read_ranking,
    search_words,
)
from embedtrain.workflows.prepare import cache_of


def validating(
    run: RunFolder, recipe: Recipe, task: RetrievalTask | None, contract: ModelContract
) -> list[Validation]:
    """Return the validation that a recipe asks for, if any; ``contract`` is that of the model in training."""
    config = recipe.validation
    if config is None or task is None:
        return []
    found = Validation(
        config.every_steps,
        task,
        run.checkpoints,
        recipe.trainer.patience,
        precision=config.precision,
        min_gain=config.min_gain,
        keep=config.keep,
    )
    if isinstance(recipe.model, CrossEncoderConfig):
        assert isinstance(contract, PairContract)
        # The first stage gets the queries as they are; before those of the second stands what its contract puts there.
        told = contract.under(config.instruction).query_prompt
        asked = replace(task, queries=[told + query for query in task.queries])
        lists = first_lists(config, task, cache_of(recipe.data))
        found = replace(found, task=asked, lists=lists)
    return [found]


def first_lists(config: ValidationConfig, task: RetrievalTask, cache: Path) -> SearchResult:
    """Return what the first stage finds, and say how good its order and the best order of it are.

    Raises:
        UserError: If the first stage cannot be loaded or read.
    """
    first, depth = config.first_stage or BM25, config.top
    if first == BM25:
        found = search_words(task, depth, timed=False, price=None).found
    elif is_model(first):
        found = _search(first, task, config, cache)
    else:
        path = Path(first.removeprefix(RUN)).expanduser()
        found = read_ranking(path, task, depth).found
    judged = grades(task.qrels, task.query_ids, task.document_ids, found)
    own = mean_scores(score_lists(task, found))[METRIC]
    best = mean_scores(score_lists(task, reorder(found, judged, found.indices.shape[1])))[METRIC]
    console.print(
        f"Validation puts the first {found.indices.shape[1]} documents of {first} in order: nDCG@10 is {own:.4f} as "
        f"they come, and {best:.4f} in the best order"
    )
    return found


def _search(path: str, task: RetrievalTask, config: ValidationConfig, cache: Path) -> SearchResult:
    """Search with a model; the ranks share the corpus, and a run that goes on finds it in the cache."""
    model = load_encoder(path)
    settings: Any = {"cache": cache, "shard": own_shard(), "precision": config.precision}
    embed: Any = partial(embed_once, model, model_key(model), **settings)
    queries, documents = embed(task.queries, "query"), embed(task.documents, "document")
    found = search(queries, documents, config.top, interaction_of(model), model.device)
    return in_trec_order(found, task.document_ids)
