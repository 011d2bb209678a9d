"""Open and tokenise what a recipe trains and measures on, with a progress bar for each."""

from dataclasses import dataclass
from pathlib import Path

from embedtrain.contract.texts import Contract, TextSide, Tokenization
from embedtrain.data.batches import DataConfig
from embedtrain.data.sources import RetrievalTask, open_source
from embedtrain.data.sources import load_task as read_task
from embedtrain.data.tokenized import TokenizedSource, tokenize_source
from embedtrain.errors import UserError
from embedtrain.files import default_cache
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.encoder import TextEncoder
from embedtrain.progress import progress_bar
from embedtrain.recipe.retrieval import Recipe
from embedtrain.training.sources import TrainingData
from embedtrain.training.trainer import check_loggers


@dataclass(frozen=True)
class Prepared:
    """Everything a recipe reads."""

    sources: list[TokenizedSource]
    validation: RetrievalTask | None
    evaluation: RetrievalTask | None


def prepare(recipe: Recipe, tokenization: Tokenization) -> Prepared:
    """Open all that a recipe names, so that a mistake shows before any work starts.

    Raises:
        UserError: If data, a task, the batch size or a missing extra would stop the run later.
    """
    check_loggers(recipe.trainer)
    cache = cache_of(recipe.data)
    tasks = [
        None if task is None else load_task(task.path, task.split, cache)
        for task in (recipe.validation, recipe.evaluation)
    ]
    sources = prepare_sources(recipe.data, tokenization)
    check_batch_size(sources, recipe.data.batch_sizes(recipe.trainer.batch_size))
    return Prepared(sources, *tasks)


def with_contract(recipe: Recipe, model: TextEncoder) -> Recipe:
    """Write the contract that the model resolved into the recipe: the run folder leaves nothing open."""
    contract, markers = model.contract, {"query": "", "document": ""}
    resolved: dict[str, object] = {"similarity": contract.similarity}
    if isinstance(contract, Contract):
        resolved["pooling"] = contract.pooling
        if isinstance(model, DenseEncoder) and model.words is not None:
            resolved["words"] = model.words.config
    else:
        markers = dict(zip(markers, contract.markers or ("", ""), strict=True))
        resolved |= {f"{side}_marker": marker for side, marker in markers.items()}
        names = ("dim", "query_expansion", "attend_to_expansion", "skiplist")
        resolved |= {name: getattr(contract, name) for name in names}
    sides = {
        "query": TextSide(
            prompt=contract.query_prompt.removeprefix(markers["query"]),
            length=contract.query_length,
        ),
        "document": TextSide(
            prompt=contract.document_prompt.removeprefix(markers["document"]),
            length=contract.document_length,
        ),
    }
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=sides | resolved)})


def cache_of(config: DataConfig) -> Path:
    """Return the folder of caches that a recipe uses."""
    return Path(config.cache).expanduser() if config.cache else default_cache()


def prepare_sources(config: TrainingData, tokenization: Tokenization) -> list[TokenizedSource]:
    """Return the tokenised sources of a recipe, from the cache where it has them."""
    cache = cache_of(config)
    sources = []
    for source_config in config.sources:
        with progress_bar(f"Reading {source_config.path}", None) as advance:
            source = open_source(source_config, cache, lambda *_, advance=advance: advance(1))
        with progress_bar(f"Tokenising {source.place}", source.length) as advance:
            under = _under_instruction(tokenization, source_config.instruction)
            sources.append(tokenize_source(source, under, cache, advance))
    return sources


def _under_instruction(tokenization: Tokenization, name: str | None) -> Tokenization:
    """Return the tokenization with the prompts that a source's instruction asks for."""
    contract = tokenization.contract
    if name is None or not isinstance(contract, Contract):
        return tokenization
    return Tokenization(tokenization.tokenizer, contract.under(name))


def load_task(path: str, split: str, cache: Path | None = None) -> RetrievalTask:
    """Read a retrieval task."""
    with progress_bar(f"Reading {path} {split}", None) as advance:
        return read_task(path, split, cache, lambda *_: advance(1))


def check_batch_size(sources: list[TokenizedSource], batch_sizes: list[int]) -> None:
    """Refuse a batch that no epoch could fill without repeating a row.

    Raises:
        UserError: If a source has fewer rows than a batch.
    """
    for source, batch_size in zip(sources, batch_sizes, strict=True):
        if len(source) < batch_size:
            raise UserError(
                "trainer.batch_size",
                f"is more than the {len(source)} rows of {source.place}",
                got=batch_size,
                cure="Lower it",
            )
