"""Open and tokenise what a recipe trains and measures on, with a progress bar for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, get_args

from torch import nn

from embedtrain.contract.late_contract import LateInteractionContract
from embedtrain.contract.pair_contract import PairContract
from embedtrain.contract.sparse_contract import SparseContract
from embedtrain.contract.texts import Contract, ModelContract, TextSide, Tokenization
from embedtrain.data.batches import DataConfig
from embedtrain.data.examples import Source
from embedtrain.data.given import name_given
from embedtrain.data.held_out import CORPUS, Part, hold_out
from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.sources import load_task as read_task
from embedtrain.data.sources import open_source
from embedtrain.data.swapped import with_swapped_negatives
from embedtrain.data.tokenized import TokenizedSource, tokenize_source
from embedtrain.errors import UserError
from embedtrain.evaluation.results.report import refuse_single
from embedtrain.files import default_cache
from embedtrain.models.dense.config import DenseSide, QuerySide
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.sparse.resolving import resolved_sparse
from embedtrain.models.text_model import TextModel
from embedtrain.objectives.binary_cross_entropy import BinaryCrossEntropy
from embedtrain.precision import choose
from embedtrain.progress import progress_bar
from embedtrain.recipe.pretraining import PretrainRecipe
from embedtrain.recipe.retrieval import Recipe
from embedtrain.recipe.run_files import Summary
from embedtrain.training.precision import choose_precision
from embedtrain.training.sources import TrainingData, TrainingSource
from embedtrain.training.trainer import check_loggers
from embedtrain.types import Side
from embedtrain.workflows.mined_source import mined_source
from embedtrain.workflows.rivals import with_fewer

RecipeT = TypeVar("RecipeT", Recipe, PretrainRecipe)


@dataclass(frozen=True)
class Opened:
    """The training data of a recipe without what is held out, and what it measures on."""

    texts: list[Source]
    validation: RetrievalTask | None
    evaluation: RetrievalTask | None
    held_out: list[str]
    """What ``fraction`` took out of the sources, a sentence for each section."""


@dataclass(frozen=True)
class Prepared(Opened):
    """The same, with the tokenised sources."""

    sources: list[TokenizedSource]


def prepare(recipe: Recipe, tokenization: Tokenization) -> Prepared:
    """Open all that a recipe names, so that a mistake shows before any work starts.

    Raises:
        UserError: If data, a task, the batch size or a missing extra would stop the run later.
    """
    check_loggers(recipe.trainer)
    opened = open_data(recipe)
    sources = prepare_sources(recipe.data, tokenization, opened.texts)
    if not recipe.trainer.auto:  # which looks at the sources first
        check_batch_size(sources, recipe.data.batch_sizes(recipe.trainer.batch_size))
    return Prepared(**vars(opened), sources=sources)


def open_data(recipe: Recipe) -> Opened:
    """Open the sources and tasks of a recipe; a task that is a ``fraction`` is taken out of the sources.

    Raises:
        UserError: If one cannot be read, or a fraction holds too few queries.
    """
    cache = cache_of(recipe.data)
    sections = {"evaluation": recipe.evaluation, "validation": recipe.validation}
    configs = {name: config for name, config in sections.items() if config is not None}
    tasks = {
        name: load_task(config.path, config.split, cache)
        for name, config in configs.items()
        if config.path is not None
    }
    sources, summary = open_sources(recipe.data), []
    parts = [
        Part(name, config.fraction, config.num_documents or CORPUS)
        for name, config in configs.items()
        if config.fraction is not None
    ]
    if parts:
        with progress_bar("Holding out rows to measure on", None) as advance:
            held = hold_out(sources, parts, cache, advance)
        sources, summary = held.sources, held.summary
        tasks |= held.tasks
    for name, config in configs.items():
        tasks[name] = with_fewer(
            tasks[name], config.num_queries, config.num_documents, config.others
        )
    if "evaluation" in tasks:  # it is compared with the scores before training
        refuse_single(len(tasks["evaluation"].queries), "evaluation")
    return Opened(sources, tasks.get("validation"), tasks.get("evaluation"), summary)


def with_contract(recipe: Recipe, model: TextModel) -> Recipe:
    """Write the contract that the model resolved into the recipe: the run folder leaves nothing open."""
    if isinstance(model.contract, PairContract):
        said: dict[str, object] = model.contract.model_dump(include={"query_length", "template"})
        said |= {"length": model.contract.pair_length, "scorer": model.contract.scoring}
        fixed = model.contract.scoring == "yes_no" and model.contract.answer_start is None
        if fixed and not (recipe.model.lora or recipe.model.train):
            raise UserError(
                "model.lora",
                "is missing: of a causal model that answers in words only adapters or biases are trained",
                cure="Add model.lora={rank: 16}, or model.train=biases, or set scorer: classifier",
            )
        return recipe.model_copy(update={"model": recipe.model.model_copy(update=said)})
    if isinstance(model.contract, SparseContract):
        return recipe.model_copy(
            update={"model": recipe.model.model_copy(update=resolved_sparse(model.contract))}
        )
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
    sides: dict[Side, TextSide] = {}
    for side in get_args(Side):
        prompt, length = contract.prompt(side).removeprefix(markers[side]), contract.length(side)
        sides[side] = TextSide(prompt=prompt, length=length)
        if isinstance(contract, Contract):
            suffix = contract.framing.suffix(side) if contract.framing else ""
            sides[side] = DenseSide(prompt=prompt, length=length, suffix=suffix)
            if side == "query":
                cut = contract.framing.query_cut if contract.framing else "end"
                sides[side] = QuerySide(prompt=prompt, length=length, suffix=suffix, cut=cut)
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=sides | resolved)})


def trained_contract(recipe: Recipe, model: TextModel, end: Summary) -> ModelContract:
    """Return the contract of what a run exports.

    What its scores mean, and what its vectors may be stored as, depends on the objective; a start that is exported keeps
    what it said, and a point between both says only what both do.

    Args:
        recipe: What trained.
        model: With the contract of the start.
        end: How the run ended.
    """
    contract = model.contract
    if end.get("exports_start"):
        return contract
    if isinstance(contract, Contract | LateInteractionContract):
        assert isinstance(model, TextEncoder)
        outputs = next(filter(None, (one.stored(model.dim) for one in recipe.objectives)), None)
        is_learned = end.get("blend", 1.0) == 1 or outputs == contract.outputs
        return contract.model_copy(update={"outputs": outputs if is_learned else None})
    if not isinstance(contract, PairContract):
        return contract
    says = all(
        isinstance(one, BinaryCrossEntropy) and one.says_probability for one in recipe.objectives
    )
    return contract.model_copy(update={"says_probability": says})


def with_machine(recipe: RecipeT, model: nn.Module) -> RecipeT:
    """Write what this machine decides into the recipe: its precisions, which a resumed run and other ranks keep.

    A run that began on a GPU and goes on without one so measures in what it measured in before.
    """
    update: dict[str, object] = {"trainer": choose_precision(recipe.trainer, model)}
    if isinstance(recipe, Recipe):
        kind = next(model.parameters()).device.type
        for name, task in (("validation", recipe.validation), ("evaluation", recipe.evaluation)):
            if task is not None:
                chosen = choose(task.precision, kind)
                update[name] = task.model_copy(update={"precision": chosen})
        sources = tuple(source.with_precision(kind) for source in recipe.data.sources)
        update["data"] = recipe.data.model_copy(update={"sources": sources})
    return recipe.model_copy(update=update)


def cache_of(config: DataConfig) -> Path:
    """Return the folder of caches that a recipe uses."""
    return Path(config.cache).expanduser() if config.cache else default_cache()


def open_sources(config: TrainingData) -> list[Source]:
    """Open the sources of a recipe, whole."""
    sources = []
    for source_config in config.sources:
        if source_config.negatives is not None:
            sources.append(mined_source(source_config, source_config.negatives, cache_of(config)))
            continue
        with progress_bar(f"Reading {name_given(source_config.path)}", None) as advance:
            found = open_source(source_config, cache_of(config), lambda *_, step=advance: step(1))
            sources.append(found)
    if config.swapped_negatives:
        instructions = [source_config.instruction for source_config in config.sources]
        return with_swapped_negatives(sources, instructions, config.swapped_negatives)
    return sources


def prepare_sources(
    config: TrainingData, tokenization: Tokenization, opened: Sequence[Source] | None = None
) -> list[TokenizedSource]:
    """Return the tokenised sources of a recipe, from the cache where it has them."""
    sources = []
    opened = open_sources(config) if opened is None else opened
    for source_config, source in zip(config.sources, opened, strict=True):
        with progress_bar(
            f"Tokenising {source.place}", source.length or source.num_lines
        ) as advance:
            under = _as_source(tokenization, source_config)
            sources.append(tokenize_source(source, under, cache_of(config), advance))
    return sources


def _as_source(tokenization: Tokenization, source: TrainingSource) -> Tokenization:
    """Return the tokenization with the prompts that a source's instruction asks for, and with its length."""
    contract, name, length = tokenization.contract, source.instruction, source.document_length
    if name is not None and isinstance(contract, Contract | PairContract):
        contract = contract.under(name)
    if length is not None and not isinstance(contract, PairContract):
        shorter = min(length, contract.document_length)
        contract = contract.model_copy(update={"document_length": shorter})
    return tokenization if contract is tokenization.contract else tokenization.under(contract)


def load_task(path: str, split: str, cache: Path | None = None) -> RetrievalTask:
    """Read a retrieval task."""
    with progress_bar(f"Reading {name_given(path)} {split}", None) as advance:
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
